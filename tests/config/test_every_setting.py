"""Every key of the config has an effect, and this says which: no setting is read by nobody."""

from __future__ import annotations

import json

import pytest
import torch

from ppo_lab.config import SECTIONS, Config
from ppo_lab.config.loading import override
from ppo_lab.envs.making import make_envs
from ppo_lab.errors import ConfigError, EnvError
from ppo_lab.ppo.state import pick_device
from ppo_lab.training.trainer import Trainer

BASE = {
    "env": {"id": "ppo_lab/CartPole-v1", "num_envs": 2},
    "model": {"hidden_sizes": [8]},
    "ppo": {"total_timesteps": 96, "num_steps": 16, "update_epochs": 2, "num_minibatches": 2, "learning_rate": 3e-3},
    "run": {"root": None},
}
PENDULUM = {"env.id": "Pendulum-v1", "env.kwargs": {"max_episode_steps": 10}}
CATCH = {"env.id": "ppo_lab/Catch-v0"}
ENTITIES = {"env": {"id": "ppo_lab/Catch-v0", "kwargs": {"observation": "entities"}}, "model.body": "entities"}
DICT = {"env": {"id": "ppo_lab/Spaces-v0", "kwargs": {"observation": "dict"}}}
LINEAR_CLIP = {"ppo.clip_coef_schedule": "linear", "ppo.clip_coef": 0.01}
LINEAR_ENT = {"ppo.ent_coef_schedule": "linear", "ppo.ent_coef": 0.1}
LINEAR_LR = {"ppo.learning_rate_schedule": "linear"}

# key: (settings around it, another value) - training ends with other weights
CHANGES_TRAINING = {
    "env.id": ({}, "CartPole-v1"),
    "env.kwargs": ({}, {"max_episode_steps": 5}),
    "env.num_envs": ({}, 3),
    "env.vector": ({"env.id": "CartPole-v1"}, True),
    "env.wrappers": ({"env.id": "CartPole-v1"}, [{"TimeLimit": {"max_episode_steps": 5}}]),
    "env.frame_stack": ({}, 2),
    "env.time_aware": ({}, True),
    "env.mask_from_info": ({"env.id": "Taxi-v4"}, False),
    "model.body": (CATCH, "cnn_small"),
    "model.channels": ({**CATCH, "model.body": "cnn_small"}, "first"),
    "model.convolutions": ({**CATCH, "model.body": "cnn", "model.convolutions": [[8, 3, 1]]}, [[8, 3, 2]]),
    "model.attention_layers": (ENTITIES, 1),
    "model.attention_heads": (ENTITIES, 2),
    "model.attention_size": (ENTITIES, 16),
    "model.core": ({}, "gru"),
    "model.core_size": ({"model.core": "lstm"}, 16),
    "model.core_layers": ({"model.core": "gru"}, 2),
    "model.window": ({"model.core": "window"}, 2),
    "model.privileged": (DICT, ["privileged"]),
    "model.distribution": (PENDULUM, "squashed"),
    "model.bound": (PENDULUM, "clip"),
    "model.std": (PENDULUM, "state"),
    "model.log_std_min": ({**PENDULUM, "model.log_std_init": 0.0, "model.std": "state"}, 0.0),
    "model.log_std_max": ({**PENDULUM, "model.log_std_init": 0.0, "model.std": "state"}, 0.0),
    "model.sde_interval": ({**PENDULUM, "model.std": "gsde"}, 1),
    "model.normalize_value": ({}, True),
    "model.precision": ({}, "bfloat16"),
    "ppo.chunk_length": ({"model.core": "gru"}, 4),
    "ppo.optimizer": ({}, "sgd"),
    "ppo.weight_decay": ({"ppo.optimizer": "adamw"}, 0.5),
    "ppo.desired_kl": ({"ppo.learning_rate_schedule": "adaptive"}, 1e-6),
    "ppo.dual_clip": ({"ppo.update_epochs": 8, "ppo.learning_rate": 0.1, "ppo.max_grad_norm": 1e9}, 1.001),
    "ppo.target_entropy": ({}, 5.0),
    "ppo.recompute_advantage": ({}, True),
    "ppo.reward_scale": ({}, 0.1),
    "ppo.reward_bound": ({}, 0.5),
    "model.hidden_sizes": ({}, [8, 8]),
    "model.activation": ({}, "relu"),
    "model.shared": ({}, True),
    "model.normalize_obs": ({}, True),
    "model.obs_clip": ({"model.normalize_obs": True}, 0.1),
    "model.log_std_init": (PENDULUM, -1.0),
    "ppo.total_timesteps": (LINEAR_LR, 64),
    "ppo.num_steps": ({}, 8),
    "ppo.update_epochs": ({}, 3),
    "ppo.num_minibatches": ({}, 3),
    "ppo.gamma": ({}, 0.5),
    "ppo.gae_lambda": ({}, 0.5),
    "ppo.learning_rate": ({}, 1e-4),
    "ppo.learning_rate_schedule": ({}, "linear"),
    "ppo.learning_rate_end": (LINEAR_LR, 1e-3),
    "ppo.learning_rate_milestones": (
        {"ppo": {"learning_rate_schedule": "milestones", "learning_rate_milestones": {0.5: 1e-3}}},
        {0.5: 1e-5},
    ),
    "ppo.learning_rate_warmup": ({}, 0.9),
    "ppo.critic_learning_rate": ({}, 1e-4),
    "ppo.clip_coef": ({}, 0.01),
    "ppo.clip_coef_schedule": ({"ppo.clip_coef": 0.01, "ppo.clip_coef_end": 1.0}, "cosine"),
    "ppo.clip_coef_end": (LINEAR_CLIP, 1.0),
    "ppo.clip_coef_milestones": (
        {"ppo": {"clip_coef": 0.01, "clip_coef_schedule": "milestones", "clip_coef_milestones": {0.3: 0.01}}},
        {0.3: 1.0},
    ),
    "ppo.value_clip_coef": ({}, 0.001),
    "ppo.ent_coef": ({}, 0.5),
    "ppo.ent_coef_schedule": ({"ppo.ent_coef": 0.1}, "linear"),
    "ppo.ent_coef_end": (LINEAR_ENT, 1.0),
    "ppo.ent_coef_milestones": (
        {"ppo": {"ent_coef": 0.1, "ent_coef_schedule": "milestones", "ent_coef_milestones": {0.3: 0.2}}},
        {0.3: 1.0},
    ),
    "ppo.vf_coef": ({"ppo.max_grad_norm": 1e9, "model.shared": True}, 5.0),
    "ppo.max_grad_norm": ({}, 0.01),
    "ppo.target_kl": ({}, 1e-6),
    "ppo.normalize_advantage": ({}, "never"),
    "ppo.normalize_reward": ({}, True),
    "ppo.reward_clip": ({"ppo.normalize_reward": True}, 0.1),
    "ppo.adam_eps": ({}, 0.1),
    "run.seed": ({}, 2),
    "run.engine": ({}, "reference"),  # the last digits
}
# what the others do is tested below, one by one
HAS_ITS_OWN_TEST = {
    "env.workers", "env.allow_import", "env.life_loss", "ppo.accumulate",
    "env.retry",  # in tests/envs/adapters/test_retries.py
    "run.name", "run.root", "run.device", "run.threads", "run.compile", "run.tensorboard",
    "env.seed_episodes", "env.new_each_episode",  # in tests/envs/adapters/test_env_memory.py
    # in tests/engine/test_graphs.py
    "run.cuda_graphs", "run.deterministic",
    # in tests/envs/adapters/test_info_metrics.py and tests/evaluation/test_evaluation_ends.py
    "env.info_metrics", "run.eval_max_steps",
    # in tests/training/test_resume.py
    "run.checkpoint_every", "run.keep_last", "run.keep_every", "run.best_by", "run.eval_every", "run.eval_episodes",
}  # fmt: skip


def fingerprint(*layers):
    config = Config()
    for layer in (BASE, *layers):
        config = override(config, layer)
    trainer = Trainer(config)
    for _ in trainer:
        pass
    trainer.close()
    return trainer.fingerprint()


def test_no_setting_is_left_out():
    known = {f"{section}.{name}" for section, model in SECTIONS.items() for name in model.model_fields}
    assert known == CHANGES_TRAINING.keys() | HAS_ITS_OWN_TEST


@pytest.mark.parametrize("key", CHANGES_TRAINING)
def test_it_changes_what_is_learned(key):
    around, value = CHANGES_TRAINING[key]
    assert fingerprint(around) == fingerprint(around)
    assert fingerprint(around, {key: value}) != fingerprint(around)


def test_only_the_known_bodies_can_be_asked_for():
    with pytest.raises(ConfigError, match=r"model.body: no body 'mlq'; did you mean 'mlp'\?; known: mlp, cnn"):
        Trainer(override(override(Config(), BASE), {"model.body": "mlq"}))


def test_a_minibatch_in_parts_is_the_minibatch():
    whole, parts = (Trainer(override(override(Config(), BASE), {"ppo.accumulate": n})) for n in (1, 3))
    for one, other in zip(whole, parts, strict=True):
        for key in ("loss/policy", "loss/value", "update/grad_norm"):
            assert one.metrics[key] == pytest.approx(other.metrics[key], rel=1e-3, abs=1e-5)


def test_workers_step_in_other_processes():
    config = override(Config(), {"env.workers": 2, "env.num_envs": 2})
    envs = make_envs(config)
    try:
        assert type(envs) is not type(make_envs(override(Config(), {"env.num_envs": 1})))
    finally:
        envs.close()


def test_an_id_that_imports_needs_leave():
    with pytest.raises((ConfigError, EnvError), match="allow_import"):
        make_envs(override(Config(), {"env.id": "this_is_no_module:Env-v0"}))
    with pytest.raises((ConfigError, EnvError), match="this_is_no_module"):
        make_envs(override(Config(), {"env.id": "this_is_no_module:Env-v0", "env.allow_import": True}))


def test_device_and_threads():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="finds no CUDA device; use auto or cpu"):
            pick_device("cuda")
    try:
        Trainer(override(override(Config(), BASE), {"run.threads": 2})).close()
        assert torch.get_num_threads() == 2
        Trainer(override(override(Config(), BASE), {"run.threads": None})).close()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("tensorboard", [True, False])
def test_root_name_and_tensorboard_say_what_is_written(tmp_path, tensorboard):
    records = {"run.root": str(tmp_path / "runs"), "run.name": "one", "run.tensorboard": tensorboard}
    fingerprint(records)
    folder = tmp_path / "runs" / "one"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == [1, 2, 3]
    assert bool(list(folder.glob("events.out.*"))) == tensorboard


def test_what_is_recorded_does_not_change_what_is_learned(tmp_path):
    assert fingerprint({"run.root": str(tmp_path)}) == fingerprint()
