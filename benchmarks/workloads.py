"""What peers.py measures: each workload in ppo_lab's words, and from these the same in the words of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from settings import RECURRENT_OURS, SPEED_OURS

BATCHED = "ppo_lab/CartPole-v1"
RECORDED = ("ours_records", "ours_batched_records")  # the variants that write metrics.jsonl and TensorBoard's files

Settings = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """Something to learn at settings that are equal for all. One update is num_envs x num_steps env steps."""

    title: str
    ours: Settings  # of ppo_lab, where they are not its defaults
    warm_up: int  # updates before the clock starts
    updates: int  # updates under the clock
    theirs: str = ""  # what the others call the environment, where ours has another id
    threads: int = 1
    baseline: str = "sb3"
    needs: tuple[str, str] | None = None  # a module, and how to install it
    cleanrl: str = ""  # CleanRL's script
    variants: Mapping[str, Settings] = field(default_factory=dict)  # more contenders of ours: what differs

    @property
    def env(self) -> str:
        """The id of the environment for all but us."""
        return self.theirs or str(self.ours["env.id"])

    @property
    def rows(self) -> int:
        """Env steps of an update."""
        return int(self.ours["env.num_envs"] * self.ours["ppo.num_steps"])

    @property
    def minibatch(self) -> int:
        """Rows of a minibatch."""
        return self.rows // int(self.ours["ppo.num_minibatches"])

    @property
    def shape(self) -> str:
        """ "8 x 128, 4 epochs, minibatches of 256"."""
        ours = self.ours
        rollout = f"{ours['env.num_envs']} x {ours['ppo.num_steps']}"
        return f"{rollout}, {ours['ppo.update_epochs']} epochs, minibatches of {self.minibatch}"

    def is_plain(self) -> bool:
        """Two networks of linear layers, and nothing normalised?"""
        usual = self.ours.get("model.body", "mlp") == "mlp" and self.ours.get("model.core", "none") == "none"
        return usual and not self.ours.get("model.normalize_obs", False)


def speed(env: str, num_envs: int, num_steps: int, minibatch: int, **ppo: Any) -> Settings:
    """Settings of ppo_lab: those of SPEED_OURS in another shape."""
    shape = {"env.id": env, "env.num_envs": num_envs, "ppo.num_steps": num_steps}
    batches = {"ppo.num_minibatches": num_envs * num_steps // minibatch}
    return {**SPEED_OURS, **shape, **batches, **{f"ppo.{key}": value for key, value in ppo.items()}}


ATARI: Settings = {
    **speed("ALE/Pong-v5", 8, 128, 256, learning_rate=2.5e-4, clip_coef=0.1, ent_coef=0.01, reward_bound=1.0),
    "env.vector": True,
    "env.kwargs": {"repeat_action_probability": 0.0, "num_threads": 2},
    "model.body": "cnn",
    "model.hidden_sizes": [512],
    "model.activation": "relu",
    "model.shared": True,
}
MUJOCO: Settings = {
    **speed("HalfCheetah-v5", 16, 128, 64, update_epochs=10, vf_coef=0.25, normalize_reward=True),
    "model.normalize_obs": True,
    "model.log_std_init": -0.5,
}
# Updates are so many that Stable-Baselines3 takes 3 to 8 seconds on the machines of results/peers.json.
WORKLOADS: dict[str, Workload] = {
    "cartpole": Workload(
        title="CartPole",
        ours=speed("CartPole-v1", 8, 128, 256),
        warm_up=5,
        updates=60,
        cleanrl="ppo.py",
        variants={
            "ours_records": {},
            "ours_batched": {"env.id": BATCHED},
            "ours_batched_records": {"env.id": BATCHED},
        },
    ),
    "cartpole_64x32": Workload(
        title="CartPole",
        ours=speed("CartPole-v1", 64, 32, 512),
        warm_up=5,
        updates=60,
        cleanrl="ppo.py",
        variants={"ours_batched": {"env.id": BATCHED}},
    ),
    "acrobot": Workload(  # as RL Zoo, without its normalisation
        title="Acrobot",
        ours=speed("Acrobot-v1", 16, 256, 64, gae_lambda=0.94),
        warm_up=1,
        updates=8,
        cleanrl="ppo.py",
    ),
    "lunar_lander": Workload(  # as RL Zoo, with rollouts half as long
        title="LunarLander",
        ours=speed("LunarLander-v3", 16, 512, 64, gamma=0.999, gae_lambda=0.98, ent_coef=0.01),
        warm_up=1,
        updates=3,
        needs=("Box2D", 'pip install "gymnasium[box2d]"'),
        cleanrl="ppo.py",
    ),
    "half_cheetah": Workload(  # our preset without what the others lack: recomputed advantages, normalised values
        title="HalfCheetah",
        ours=MUJOCO,
        warm_up=1,
        updates=8,
        needs=("mujoco", 'pip install "gymnasium[mujoco]"'),
        cleanrl="ppo_continuous_action.py",
    ),
    "pong": Workload(  # our preset
        title="Pong",
        ours=ATARI,
        warm_up=1,
        updates=2,
        theirs="PongNoFrameskip-v4",
        threads=2,
        needs=("ale_py", "pip install ale-py opencv-python-headless"),
        cleanrl="ppo_atari.py",
        variants={"ours_bfloat16": {"model.precision": "bfloat16"}},
    ),
    "recurrent": Workload(  # sb3-contrib's defaults
        title="CartPole, LSTM",
        ours={**RECURRENT_OURS, "env.id": "CartPole-v1"},
        warm_up=1,
        updates=2,
        baseline="sb3_contrib",
        needs=("sb3_contrib", "pip install sb3-contrib"),
        variants={
            "ours_far": {"ppo.chunk_length": 128},
            "ours_batched": {"env.id": BATCHED},
            "ours_gru": {"model.core": "gru"},
        },
    ),
}


def tiny(workload: Workload) -> Workload:
    """The same with almost no work, to see that everything runs."""
    small = {"ppo.num_steps": 16, "ppo.num_minibatches": 2, "ppo.update_epochs": 1}
    variants = {name: {**change, "ppo.chunk_length": 16} for name, change in workload.variants.items()}
    return replace(workload, ours={**workload.ours, **small}, variants=variants, warm_up=1, updates=1)


def sb3_task(workload: Workload) -> dict[str, Any]:
    """What sb3.py is asked for: the same work in the words of Stable-Baselines3 and its relatives."""
    ours, words = workload.ours, {"num_steps": "n_steps", "update_epochs": "n_epochs", "clip_coef": "clip_range"}
    same = ("learning_rate", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm", *words)
    settings = {words.get(key, key): ours[f"ppo.{key}"] for key in same} | {"batch_size": workload.minibatch}
    hidden, policy = ours["model.hidden_sizes"], "MlpPolicy"
    networks: dict[str, Any] = {"net_arch": {"pi": hidden, "vf": hidden}}  # tanh
    if "model.core" in ours:
        policy = "MlpLstmPolicy"
        networks |= {"lstm_hidden_size": ours["model.core_size"], "n_lstm_layers": ours["model.core_layers"]}
        networks |= {"enable_critic_lstm": True, "shared_lstm": False}
    if "model.log_std_init" in ours:
        networks["log_std_init"] = ours["model.log_std_init"]
    if ours.get("model.body") == "cnn":
        policy, networks = "CnnPolicy", {}  # its own network is the same: three convolutions, 512 units, shared
    envs = {
        "env": workload.env,
        "num_envs": ours["env.num_envs"],
        "normalize": bool(ours.get("model.normalize_obs", False)),  # VecNormalize: observations and rewards
        "atari": policy == "CnnPolicy",  # make_atari_env, VecFrameStack
    }
    return {"policy": policy, "settings": settings | {"policy_kwargs": networks}, "envs": envs}


def cleanrl_settings(workload: Workload) -> dict[str, Any]:
    """Values of the flags of CleanRL's scripts. What they have on by default and the others lack is off."""
    same = ("num_steps", "num_minibatches", "update_epochs", "learning_rate", "gamma", "gae_lambda", "clip_coef")
    given = {key: workload.ours[f"ppo.{key}"] for key in (*same, "ent_coef", "vf_coef", "max_grad_norm")}
    off = {"anneal_lr": False, "clip_vloss": False, "cuda": False}
    return {"env_id": workload.env, "num_envs": workload.ours["env.num_envs"], **given, **off}


def puffer_task(workload: Workload) -> dict[str, Any]:
    """What puffer.py is asked for. What PufferLib adds to PPO (priorities, V-trace) is set to have no effect."""
    ours = workload.ours
    same = ("update_epochs", "learning_rate", "gamma", "gae_lambda", "clip_coef", "ent_coef", "vf_coef")
    config = {key: ours[f"ppo.{key}"] for key in (*same, "max_grad_norm")} | {
        "batch_size": workload.rows,
        "bptt_horizon": ours["ppo.num_steps"],
        "minibatch_size": workload.minibatch,
        "max_minibatch_size": workload.minibatch,
        "total_timesteps": 10**9,
        "vf_clip_coef": 1e6,
        "prio_alpha": 0.0,
        "prio_beta0": 1.0,
        "vtrace_rho_clip": 1.0,
        "vtrace_c_clip": 1.0,
        "anneal_lr": False,
        "optimizer": "adam",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_eps": 1e-5,
        "device": "cpu",
        "precision": "float32",
        "torch_deterministic": True,
        "use_rnn": False,
        "cpu_offload": False,
        "compile": False,
        "checkpoint_interval": 10**9,
        "data_dir": "unused",
        "env": workload.env,
    }
    return {
        "env": workload.env,
        "num_envs": ours["env.num_envs"],
        "hidden": ours["model.hidden_sizes"],
        "config": config,
    }
