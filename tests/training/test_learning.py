"""The probes reach the values known on paper, in seconds; the presets learn as well as they claim (slow)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from environment.probes import PROBES, ActionDependentReward, ObsAndActionReward
from ppo_lab.config import Config
from ppo_lab.config.loading import load_config, override
from ppo_lab.evaluation import evaluate, statistics
from ppo_lab.training.trainer import Trainer

GAMMA = 0.9
PROBE = {
    "run.root": None,
    "ppo": {
        "total_timesteps": 16_000, "num_steps": 16, "update_epochs": 4, "num_minibatches": 2, "gamma": GAMMA,
        "learning_rate": 5e-3, "learning_rate_schedule": "linear", "learning_rate_end": 1e-4,
    },
    "model": {"hidden_sizes": [16]},
}  # fmt: skip


def train(probe, seed=1, **changes):
    trainer = Trainer(override(override(Config(), PROBE), {**changes, "run.seed": seed}), probe(16))
    for _ in trainer:
        pass
    return trainer


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("model", [{}, {"shared": True, "normalize_obs": True}], ids=["separate", "shared"])
def test_a_probe_reaches_its_known_values(probe, model):
    wrong = []
    for seed in (1, 2, 3):  # one that learned them will do; another is asked only where the first did not
        policy = train(probe, seed, model=model).policy()
        found = [(obs.tolist(), policy.value(obs[None])[0].item(), value) for obs, value in probe.known_values(GAMMA)]
        if all(abs(estimate - value) <= 0.1 for _, estimate, value in found):
            return
        wrong.append(found)
    raise AssertionError(f"no seed learned the values: {wrong}")


def test_the_policy_of_the_probes_is_the_right_one():
    constant = train(ActionDependentReward).policy()
    assert constant.predict(torch.zeros(1)).item() == 1
    matching = train(ObsAndActionReward).policy()
    low, high = (matching.predict(torch.tensor([x])).item() for x in (-1.0, 1.0))
    assert (low, high) == (0, 1)


def first_step_at(trainer, target):
    """The env step at which the mean of the last 100 episodes reached `target`, or None."""
    for update in trainer:
        full = update.metrics.get("episode/count", 0) >= 100
        if full and update.metrics["episode/return_mean"] >= target:
            return update.global_step
    return None


@pytest.mark.slow
def test_cartpole_is_solved_within_200_000_steps(root):
    """Ten seeds, of which one may fail: on another processor each is another run."""
    solved = []
    for seed in range(1, 11):
        config = load_config(root / "config.yaml", "cartpole", {"run.root": None, "run.seed": seed})
        assert config.ppo.total_timesteps <= 200_000
        solved.append(first_step_at(Trainer(config), 475))
    assert solved.count(None) <= 1, solved


def score_of(root, preset, seed):
    config = load_config(root / "config.yaml", preset, {"run.root": None, "run.seed": seed})
    trainer = Trainer(config)
    for _ in trainer:
        pass
    trainer.close()
    return evaluate(trainer.policy(), config, episodes=100, seed=1000 + seed).returns.mean()


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "steps", "target"), [("pendulum", 300_000, -200), ("acrobot", 500_000, -100)])
def test_a_preset_learns_as_well_as_it_claims(root, preset, steps, target):
    assert load_config(root / "config.yaml", preset).ppo.total_timesteps <= steps
    scores = np.array([score_of(root, preset, seed) for seed in range(1, 6)])
    assert statistics.iqm(scores) >= target, scores
