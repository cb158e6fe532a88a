"""What memory is for, and where it must not reach (slow): recall, and the leak detector with its control."""

from __future__ import annotations

import pytest
import torch

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.evaluation import evaluate
from ppo_lab.training.trainer import Trainer

SETTINGS = {
    "env": {"id": "ppo_lab/Recall-v0", "num_envs": 64},
    "model": {"hidden_sizes": [32], "core": "gru", "core_size": 32},
    "ppo": {
        "total_timesteps": 80_000, "num_steps": 64, "num_minibatches": 4, "update_epochs": 4, "learning_rate": 3e-3,
        "ent_coef": 0.01, "chunk_length": 32, "gamma": 0.99,
    },
    "run": {"root": None},
}  # fmt: skip


def trained(trainer: Trainer) -> Trainer:
    for _ in trainer:
        pass
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("core", ["gru", "lstm", "window"])
def test_a_core_recalls_what_was_shown_up_to_20_steps_ago(core):
    settings = {**SETTINGS, "model.core": core, "model.window": 24}

    def recalls(seed):
        trainer = trained(Trainer(override(Config(), {**settings, "run.seed": seed})))
        return evaluate(trainer.policy(), "ppo_lab/Recall-v0", episodes=400).returns.mean() > 0.95

    assert any(map(recalls, (1, 2, 3)))  # one seed can show it; another is asked only where the first could not


@pytest.mark.slow
def test_without_memory_it_stays_at_chance():
    trainer = trained(Trainer(override(Config(), {**SETTINGS, "model.core": "none"})))
    assert abs(evaluate(trainer.policy(), "ppo_lab/Recall-v0", episodes=400).returns.mean() - 0.5) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("core", ["gru", "lstm", "window"])
@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_nothing_leaks_from_one_episode_into_the_next(core, ending):
    env = {"id": "ppo_lab/Leak-v0", "num_envs": 64, "kwargs": {"ending": ending}}
    trainer = trained(Trainer(override(Config(), {**SETTINGS, "env": env, "model.core": core})))
    policy = trainer.policy()
    assert abs(evaluate(policy, trainer.config, episodes=2000, deterministic=False).returns.mean()) < 0.1


@pytest.mark.slow
def test_a_memory_that_is_never_reset_is_noticed(monkeypatch):
    """The control: with `starts` thrown away the same agent learns to cheat."""
    from ppo_lab.models.networks.recurrent import Recurrent

    step, features, sequence = Recurrent.step, Recurrent.features, Recurrent.sequence
    monkeypatch.setattr(Recurrent, "step", lambda self, x, m, s: step(self, x, m, torch.zeros_like(s)))
    monkeypatch.setattr(Recurrent, "features", lambda self, x, m, s: features(self, x, m, torch.zeros_like(s)))
    monkeypatch.setattr(Recurrent, "sequence", lambda self, x, m, s, e: sequence(self, x, m, torch.zeros_like(s), e))
    env = {"id": "ppo_lab/Leak-v0", "num_envs": 64}

    def cheats(seed):
        trainer = trained(Trainer(override(Config(), {**SETTINGS, "env": env, "run.seed": seed})))
        return evaluate(trainer.policy(), "ppo_lab/Leak-v0", episodes=400).returns.mean() > 0.8

    assert any(map(cheats, (1, 2, 3)))
