"""Adaptive settings: the learning rate follows the KL divergence, the entropy weight the entropy."""

from __future__ import annotations

import math

import pytest
import torch

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.errors import ConfigError
from ppo_lab.ppo.adaptive import Divergence
from ppo_lab.ppo.events import MinibatchStepped, RolloutCollected
from ppo_lab.ppo.schedules import adapted_ent_coef, adapted_learning_rate
from ppo_lab.training.trainer import Trainer

BASE = {
    "env": {"id": "ppo_lab/CartPole-v1", "num_envs": 4},
    "model": {"hidden_sizes": [8]},
    "ppo": {"total_timesteps": 640, "num_steps": 16, "learning_rate": 1e-3},
    "run": {"root": None},
}


def test_the_rate_follows_the_divergence():
    assert adapted_learning_rate(1e-3, kl=0.03, desired_kl=0.01) == pytest.approx(1e-3 / 1.5)
    assert adapted_learning_rate(1e-3, kl=0.004, desired_kl=0.01) == pytest.approx(1.5e-3)
    assert adapted_learning_rate(1e-3, kl=0.01, desired_kl=0.01) == 1e-3
    assert adapted_learning_rate(9e-3, kl=1e-9, desired_kl=0.01) == 1e-2  # no further
    assert adapted_learning_rate(1.2e-6, kl=1.0, desired_kl=0.01) == 1e-6


def test_a_policy_that_does_not_move_leaves_the_rate_alone():
    assert adapted_learning_rate(1e-3, kl=0.0, desired_kl=0.01) == 1e-3
    assert adapted_learning_rate(0.0, kl=0.0, desired_kl=0.01) == 0.0
    trainer = Trainer(override(Config(), {**BASE, "ppo.learning_rate": 0.0, "ppo.learning_rate_schedule": "adaptive"}))
    assert {update.metrics["update/learning_rate"] for update in trainer} == {0.0}


def test_what_a_person_set_beyond_the_bounds_is_not_pulled_back():
    assert adapted_learning_rate(0.1, kl=0.0001, desired_kl=0.01) == 0.1
    assert adapted_learning_rate(1e-8, kl=1.0, desired_kl=0.01) == 1e-8


def test_the_entropy_weight_follows_the_entropy():
    assert adapted_ent_coef(0.01, entropy=0.5, target=1.5) == pytest.approx(0.01 * math.exp(0.1))
    assert adapted_ent_coef(0.01, entropy=1.5, target=1.0) == pytest.approx(0.01 * math.exp(-0.05))
    assert adapted_ent_coef(0.0, entropy=0.0, target=1.0) > 0.0  # it can leave 0
    assert adapted_ent_coef(1.0, entropy=0.0, target=9.0) == 1.0


def test_the_divergence_is_exact():
    trainer = Trainer(override(Config(), BASE))
    model = trainer.state.model
    for event in trainer.events():
        if isinstance(event, RolloutCollected):
            moved = Divergence(model, event.rollout)
            before = model.step(event.rollout.obs[:-1], None, event.rollout.starts)[0].log_probs
            assert moved.of(model) == 0.0
        if isinstance(event, MinibatchStepped):
            after = model.step(trainer.rollout.obs[:-1], None, trainer.rollout.starts)[0].log_probs
            by_hand = (before.exp() * (before - after)).sum(-1).mean().item()
            assert moved.of(model) == pytest.approx(by_hand, rel=1e-4)
            assert by_hand > 0
            break


def learning_rates(trainer):
    return [update.metrics["update/learning_rate"] for update in trainer]


def test_training_with_an_adaptive_rate_says_what_it_did(tmp_path):
    config = override(Config(), {**BASE, "ppo.learning_rate_schedule": "adaptive", "run.root": str(tmp_path)})
    trainer = Trainer(config)
    rates, kls = [], []
    for update in trainer:
        rates.append(update.metrics["update/learning_rate"])
        kls.append(update.metrics["update/kl"])
    assert rates[0] == 1e-3
    assert rates[1:] == [adapted_learning_rate(r, k, 0.01) for r, k in zip(rates, kls, strict=True)][:-1]
    assert len(set(rates)) > 2


def test_a_dial_that_is_turned_rules_from_there():
    trainer = Trainer(override(Config(), {**BASE, "ppo.learning_rate_schedule": "adaptive"}))
    for update in trainer:
        if update.update == 3:
            trainer.set(learning_rate=5e-4)
        if update.update == 4:
            assert update.metrics["update/learning_rate"] == 5e-4
            following = adapted_learning_rate(5e-4, update.metrics["update/kl"], 0.01)
        if update.update == 5:
            assert update.metrics["update/learning_rate"] == following


def test_a_dial_set_back_to_where_it_began_rules_too():
    """After adaptation the initial value is no longer the current one, so setting it again is a change."""
    trainer = Trainer(override(Config(), {**BASE, "ppo.learning_rate_schedule": "adaptive"}))
    for update in trainer:
        if update.update == 3:
            assert update.metrics["update/learning_rate"] != 1e-3
            trainer.set(learning_rate=1e-3)
        if update.update == 4:
            assert update.metrics["update/learning_rate"] == 1e-3
            break
    assert [change.new for change in trainer.changes] == [1e-3]


def test_adapting_goes_on_after_a_resume(tmp_path):
    settings = {**BASE, "ppo.learning_rate_schedule": "adaptive", "ppo.target_entropy": 0.6, "run.root": str(tmp_path)}
    whole = Trainer(override(Config(), {**settings, "run.name": "whole"}))
    for _ in whole:
        pass
    cut = Trainer(override(Config(), {**settings, "run.name": "cut"}))
    for update in cut:
        if update.update == 4:
            break
    cut.save()
    cut.close()
    resumed = Trainer.resume(tmp_path / "cut")
    for _ in resumed:
        pass
    assert resumed.fingerprint() == whole.fingerprint()


def test_the_entropy_is_steered_to_its_target():
    settings = {**BASE, "ppo.ent_coef": 0.1, "ppo.total_timesteps": 20_000, "ppo.learning_rate": 3e-3}
    entropy, coef = {}, {}
    for target in (0.3, 0.65):
        updates = [update.metrics for update in Trainer(override(Config(), {**settings, "ppo.target_entropy": target}))]
        late = updates[len(updates) // 2 :]
        entropy[target] = sum(metrics["loss/entropy"] for metrics in late) / len(late)
        coef[target] = late[-1]["update/ent_coef"]
    assert entropy[0.3] < 0.55 < entropy[0.65] < 0.65  # four seeds: 0.42 to 0.52 and 0.60 to 0.61
    assert coef[0.3] < 0.01 < 0.1 < coef[0.65]


def test_two_rulers_for_one_setting_are_refused():
    with pytest.raises(ConfigError, match="target_entropy adapts ent_coef"):
        override(Config(), {"ppo.target_entropy": 0.5, "ppo.ent_coef_schedule": "linear"})
    with pytest.raises(ConfigError, match="weight_decay needs"):
        override(Config(), {"ppo.weight_decay": 0.1})


def test_the_global_random_numbers_are_not_touched():
    before = torch.get_rng_state()
    for _ in Trainer(override(Config(), {**BASE, "ppo.learning_rate_schedule": "adaptive"})):
        break
    assert torch.equal(torch.get_rng_state(), before)
