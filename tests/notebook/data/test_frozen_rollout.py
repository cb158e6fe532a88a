"""A frozen rollout stays unchanged, and recomputing on it gives what the trainer computes."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from ppo_lab.errors import LabError
from ppo_lab.notebook.data.frozen_rollout import freeze
from ppo_lab.ppo.events import AdvantagesEstimated, MinibatchStepped, RolloutCollected, Update
from ppo_lab.ppo.losses import clipped_surrogate
from ppo_lab.trees import leaves
from tests.notebook.fakes import trainer as small_trainer
from tests.tolerance import rounding

KINDS = {
    "plain": {},
    "everything scaled": {
        "model.normalize_obs": True, "ppo.normalize_reward": True, "ppo.normalize_advantage": "rollout"
    },
    "a live schedule": {"ppo.clip_coef_schedule": "linear", "ppo.clip_coef_end": 0.05},
    "one minibatch": {"ppo.normalize_advantage": "never", "ppo.num_minibatches": 1},
    "cut off often": {"env.kwargs": {"max_episode_steps": 5}},
    "rewards bounded, a rate that adapts": {
        "ppo.reward_scale": 3.0, "ppo.reward_bound": 2.0, "ppo.learning_rate_schedule": "adaptive"
    },
    "gru": {"model.core": "gru", "model.core_size": 8, "ppo.chunk_length": 5, "env.kwargs": {"max_episode_steps": 7}},
    "lstm, shared": {"model.core": "lstm", "model.core_size": 8, "model.shared": True},
    "window, values normalised": {
        "model.core": "window", "model.core_size": 8, "model.window": 3, "model.normalize_value": True,
        "model.normalize_obs": True, "ppo.recompute_advantage": True,
    },
    "dict, masks, hybrid": {
        "env.id": "ppo_lab/Spaces-v0", "env.kwargs": {"observation": "dict", "action": "hybrid", "masked": True},
        "model.std": "gsde", "model.distribution": "squashed",
    },
    "all of it": {
        "env.id": "ppo_lab/Spaces-v0", "env.kwargs": {"action": "hybrid", "masked": True}, "model.std": "gsde",
        "model.core": "gru", "model.core_size": 8, "ppo.chunk_length": 4, "env.frame_stack": 2, "env.time_aware": True,
    },
}  # fmt: skip


@pytest.fixture(params=KINDS)
def overrides(request):
    return KINDS[request.param]


@pytest.fixture
def trainer(overrides):
    made = trained(2, overrides)
    yield made
    made.close()


def trained(updates, overrides):
    made = small_trainer(**overrides)
    for update in made:
        if update.update == updates:
            break
    return made


def until(events, kind):
    return next(event for event in events if isinstance(event, kind))


def whole(frozen):
    """Return copies of all its tensors."""
    parts = [getattr(frozen.rollout, field.name) for field in fields(frozen.rollout)]
    return [tensor.clone() for part in parts if not isinstance(part, int) for tensor in leaves(part)] + [
        frozen.reward.clone()
    ]


def test_advantages_are_the_trainers_bit_for_bit(trainer):
    events = trainer.events()
    frozen = freeze(trainer, next(events))
    event = next(events)
    assert isinstance(event, AdvantagesEstimated)
    advantage, returns = frozen.advantages()
    assert torch.equal(advantage, event.advantage)
    assert torch.equal(returns, event.returns)


def test_other_settings_give_other_advantages_by_the_definition(trainer):
    frozen = freeze(trainer, next(trainer.events()))
    r = frozen.rollout
    surprise = frozen.reward + 0.5 * r.next_value * ~r.terminated - r.value
    torch.testing.assert_close(frozen.advantages(gamma=0.5, gae_lambda=0.0)[0], surprise)
    sums = torch.empty_like(surprise)  # with lambda 1, the discounted sum of TD errors until the episode ends
    running = torch.zeros_like(surprise[0])
    for t in reversed(range(len(surprise))):
        running = surprise[t] + 0.5 * running * ~r.done[t]
        sums[t] = running
    torch.testing.assert_close(frozen.advantages(gamma=0.5, gae_lambda=1.0)[0], sums)


def test_it_does_not_change_when_training_goes_on(trainer):
    events = trainer.events()
    frozen = freeze(trainer, next(events))
    before = whole(frozen)
    until(events, RolloutCollected)
    after = whole(frozen)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.equal(trainer.rollout.log_prob, frozen.rollout.log_prob)


def test_looking_changes_nothing(trainer, overrides):
    events = trainer.events()
    frozen = freeze(trainer, next(events))
    for event in events:
        if isinstance(event, Update):
            break
        ratio = frozen.ratio(trainer.state.model)
        frozen.surrogate([ratio], frozen.advantages()[0], 0.1)
    frozen.ratio(trainer.state.model)  # after the update has changed the normaliser
    assert trained(3, overrides).fingerprint() == trainer.fingerprint()


def test_every_ratio_is_one_before_the_first_step_and_not_after_it(trainer):
    trainer.set(learning_rate=0.02)  # a step far larger than rounding
    events = trainer.events()
    frozen = freeze(trainer, next(events))
    next(events)
    # collected step by step, evaluated here from other memory: two computations of the same number
    limit = rounding(torch.float32, 64)  # sums over a few inputs, 8 or 16 units and a memory of 8, and the logarithm
    assert (frozen.ratio(trainer.state.model) - 1.0).abs().max() < limit
    next(events)
    assert ((frozen.ratio(trainer.state.model) - 1.0).abs() > 10 * limit).float().mean() > 0.5


@pytest.mark.parametrize("core", ["gru", "window"])
def test_a_recurrent_ratio_is_the_one_in_the_loss(core):
    settings = {"model.core": core, "model.core_size": 8, "ppo.chunk_length": 5, "ppo.learning_rate": 0.03}
    made = small_trainer(**settings, **{"ppo.num_minibatches": 1, "ppo.update_epochs": 4})
    events = made.events()
    frozen = freeze(made, next(events))
    next(events)
    before = torch.ones(1)
    for event in events:
        if isinstance(event, Update):
            break
        kl, outside = (before - 1 - before.log()).mean(), ((before - 1).abs() > 0.2).float().mean()
        assert event.loss.approx_kl.item() == pytest.approx(kl.item(), rel=1e-3, abs=1e-6)
        assert event.loss.clip_fraction.item() == pytest.approx(outside.item())
        before = frozen.ratio(made.state.model)
    assert before.max() > 1.02


def test_ratios_are_likelier_now_over_likelier_then():
    made = small_trainer(**{"ppo.learning_rate": 0.03, "ppo.num_minibatches": 1, "ppo.update_epochs": 4})
    events = made.events()
    frozen = freeze(made, next(events))
    next(events)
    before = torch.ones(1)
    for event in events:
        if isinstance(event, Update):
            break
        ratio, r = frozen.ratio(made.state.model), frozen.rollout
        with torch.no_grad():
            now, _, _ = made.state.model.evaluate(r.obs[:-1], r.action, None, r.starts)
        torch.testing.assert_close(ratio, now.exp() / r.log_prob.exp())
        kl, outside = (before - 1 - before.log()).mean(), ((before - 1).abs() > 0.2).float().mean()
        # the loss is from before its step, so it agrees with the previous ratio
        assert event.loss.approx_kl.item() == pytest.approx(kl.item(), rel=1e-3, abs=1e-6)
        assert event.loss.clip_fraction.item() == pytest.approx(outside.item())
        before = ratio
    assert ratio.max() > 1.05


def test_normalisation_is_the_one_of_the_rollout_after_the_update_too():
    made = small_trainer(**KINDS["everything scaled"])
    events = made.events()
    frozen = freeze(made, next(events))
    until(events, MinibatchStepped)
    before = None
    for event in events:
        if isinstance(event, Update):
            break
        before = frozen.ratio(made.state.model)
    torch.testing.assert_close(frozen.ratio(made.state.model), before)


def test_settings_in_force_are_kept():
    made = trained(2, KINDS["a live schedule"])
    made.set(gamma=0.5)
    events = made.events()
    frozen = freeze(made, next(events))
    made.set(gamma=0.9)
    update = until(events, Update)
    assert frozen.ppo.gamma == 0.5
    assert frozen.ppo.clip_coef == update.metrics["update/clip_coef"] < 0.2


@pytest.mark.parametrize("clip_coef", [0.02, 0.2, 5.0])
@pytest.mark.parametrize("normalize", ["minibatch", "rollout", "never"])
def test_stopped_is_where_autograd_finds_no_gradient(clip_coef, normalize):
    made = small_trainer(**{"ppo.normalize_advantage": normalize, "ppo.learning_rate": 0.03})
    events = made.events()
    frozen = freeze(made, next(events))
    until(events, Update)
    ratio = frozen.ratio(made.state.model)
    advantage, _ = frozen.advantages()
    made_of = frozen.surrogate([torch.ones_like(ratio), ratio], advantage, clip_coef)
    leaf = torch.tensor(made_of.ratio[1], requires_grad=True)
    loss = clipped_surrogate(leaf, torch.tensor(made_of.advantage), clip_coef)
    loss.backward()
    np.testing.assert_array_equal(made_of.stopped[1], (leaf.grad == 0).numpy())
    assert made_of.objective[1] == pytest.approx(-loss.item())
    assert made_of.unclipped[1] == pytest.approx(float((made_of.ratio[1] * made_of.advantage).mean()), abs=1e-6)
    assert not made_of.stopped[0].any()
    assert made_of.advantage.mean() == pytest.approx(0.0 if normalize != "never" else advantage.mean().item(), abs=1e-5)
    assert made_of.stopped[1].any() == (clip_coef < 1.0)


def test_rows_that_are_no_experience_are_left_out():
    made = small_trainer()
    frozen = freeze(made, next(made.events()))
    frozen.rollout.valid[3, 1] = False
    ratio = torch.rand_like(frozen.reward) + 0.5
    made_of = frozen.surrogate([ratio], frozen.advantages()[0], 0.2)
    assert made_of.ratio.shape == (1, ratio.numel() - 1)
    assert ratio[3, 1].item() not in made_of.ratio


def test_later_is_too_late():
    made = small_trainer()
    events = made.events()
    next(events)
    with pytest.raises(LabError, match=r"freeze: expected RolloutCollected.*got AdvantagesEstimated"):
        freeze(made, next(events))
