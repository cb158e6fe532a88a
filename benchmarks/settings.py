"""What both sides run with. Every number that a table of README.md depends on stands here or in ../config.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

# Steps per second (peers.py): both sides do the same work, with the networks that Stable-Baselines3 makes by itself.
# Left out because they are equal by default: advantages normalised per minibatch, no value clipping, no KL stop,
# orthogonal initialisation, Adam with epsilon 1e-5. What the others are given is derived from ours: see workloads.py.
SPEED_OURS: dict[str, Any] = {
    "env.num_envs": 8,
    "ppo.num_steps": 128,
    "ppo.update_epochs": 4,
    "ppo.num_minibatches": 4,  # of 256
    "ppo.learning_rate": 3e-4,
    "ppo.gamma": 0.99,
    "ppo.gae_lambda": 0.95,
    "ppo.clip_coef": 0.2,
    "ppo.ent_coef": 0.0,
    "ppo.vf_coef": 0.5,
    "ppo.max_grad_norm": 0.5,
    "model.hidden_sizes": [64, 64],
    "model.activation": "tanh",
    "model.shared": False,
}

# The same with a memory, at the defaults of sb3-contrib's RecurrentPPO, MlpLstmPolicy: an LSTM of 256 units each for
# actor and critic, tanh layers 64-64 after each. Ours has the layers before the LSTM.
RECURRENT_OURS: dict[str, Any] = {
    **SPEED_OURS,
    "ppo.update_epochs": 10,
    "ppo.num_minibatches": 8,  # of 128
    "ppo.chunk_length": 16,
    "model.core": "lstm",
    "model.core_size": 256,
    "model.core_layers": 1,
}

# Seconds to the goal: each side's best known settings. Ours: the preset `cartpole` of config.yaml.
GOAL = 475.0  # mean return of the last 100 episodes of training
WINDOW = 100
GOAL_PRESET = "cartpole"
# rl-baselines3-zoo, hyperparams/ppo.yml, CartPole-v1 ("Tuned"); lin_x falls from x to 0 over n_timesteps
GOAL_SB3: dict[str, Any] = {
    "n_steps": 32,
    "n_epochs": 20,
    "batch_size": 256,
    "gamma": 0.98,
    "gae_lambda": 0.8,
    "ent_coef": 0.0,
    "learning_rate": "lin_0.001",
    "clip_range": "lin_0.2",
}
GOAL_SB3_ENVS = 8
GOAL_SB3_STEPS = 100_000

# The machine's limit (limits.py): a preset of config.yaml or the defaults, and what is changed in it.
LIMITS: dict[str, dict[str, Any]] = {
    "`ppo_lab/CartPole-v1`": {"overrides": {**SPEED_OURS, "env.id": "ppo_lab/CartPole-v1"}},
    "`CartPole-v1`": {"overrides": {**SPEED_OURS, "env.id": "CartPole-v1"}},
    "`ppo_lab/CartPole-v1`, 64 x 32": {
        "overrides": {**SPEED_OURS, "env.id": "ppo_lab/CartPole-v1", "env.num_envs": 64, "ppo.num_steps": 32}
    },
    "`ppo_lab/CartPole-v1`, 1024 x 32": {
        "overrides": {**SPEED_OURS, "env.id": "ppo_lab/CartPole-v1", "env.num_envs": 1024, "ppo.num_steps": 32}
    },
    "preset `half_cheetah`": {"preset": "half_cheetah"},
    "`half_cheetah` as beside the others": {  # the workload of peers.py
        "preset": "half_cheetah",
        "overrides": {"ppo.recompute_advantage": False, "model.normalize_value": False},
    },
}
LIMITS_SCALING: dict[str, Any] = {**SPEED_OURS, "env.id": "ppo_lab/CartPole-v1", "ppo.num_steps": 32}
LIMITS_SCALING_ENVS = [64, 256, 1024, 4096, 16_384]


# CUDA graphs (gpu.py): presets of config.yaml, and what is changed in them for many environments.
GPU: dict[str, dict[str, Any]] = {
    "cartpole": {"ppo.num_steps": 32, "ppo.num_minibatches": 8, "ppo.update_epochs": 4},
    "cartpole_no_velocity": {"ppo.num_steps": 32, "ppo.num_minibatches": 8, "ppo.update_epochs": 4},
}
GPU_DRY: dict[str, Any] = {"ppo.num_steps": 16, "ppo.update_epochs": 1}
GPU_ENVS = [4096, 65_536]
GPU_WARM_UP, GPU_UPDATES = 2, 10


def preset_names() -> list[str]:
    """The presets of config.yaml, in its order."""
    from ppo_lab.config.yaml_text import parse_yaml

    return list(parse_yaml((ROOT / "config.yaml").read_text(encoding="utf-8"))["presets"])


def preset_settings(preset: str) -> dict[str, Any]:
    """A preset of config.yaml with all defaults, as JSON holds it. Children get this and read no file of their own:

    what the results say was run is what was run, whoever edits config.yaml meanwhile.
    """
    from ppo_lab import load_config  # not above: Stable-Baselines3's processes load nothing of ours

    settings: dict[str, Any] = load_config(ROOT / "config.yaml", preset).model_dump(mode="json", exclude={"run"})
    return settings
