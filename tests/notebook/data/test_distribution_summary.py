"""The reported action distribution agrees with the actions that are taken, in the environment's units."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats

from ppo_lab.config import ModelConfig
from ppo_lab.models.distributions import make_head
from ppo_lab.notebook.data.action_arrays import ActionPart, count, numbers_of
from ppo_lab.notebook.data.distribution_summary import _squashed, action_parts

BOX = spaces.Box(np.array([-1.0, 300.0], np.float32), np.array([3.0, 500.0], np.float32))
ENDLESS = spaces.Box(-np.inf, np.inf, (2,), np.float32)
HYBRID = spaces.Dict({"pick": spaces.Discrete(3, start=5), "bits": spaces.MultiBinary(2), "turn": BOX})


def head_of(space, moved=0.4, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = make_head(space, 6, ModelConfig(**settings))
        for parameter in head.parameters():  # as after some training
            parameter.data += moved * torch.randn_like(parameter)
        return head.requires_grad_(False)


def policy_of(head, rows=1, seed=0):
    """Return the distribution at `rows` equal observations."""
    features = torch.randn(1, 6, generator=torch.Generator().manual_seed(seed)).expand(rows, 6)
    return head(features)


@pytest.mark.parametrize(
    ("space", "settings"),
    [
        (BOX, {"distribution": "squashed"}),
        (BOX, {"distribution": "squashed", "std": "state"}),
        (BOX, {"distribution": "squashed", "std": "gsde", "log_std_init": -1.0}),
        (BOX, {"distribution": "squashed", "log_std_init": 1.5}),
        (BOX, {"distribution": "beta"}),
        (BOX, {"log_std_init": -4.0}),
        (BOX, {"std": "state", "log_std_init": -4.0}),
        (ENDLESS, {"std": "gsde"}),
        (ENDLESS, {}),
    ],
)
def test_mean_and_std_are_those_of_the_actions_that_are_taken(space, settings):
    # moved only a little: with a Gaussian's mean outside the Box, clipping would change the moments
    head, rows = head_of(space, moved=0.1, **settings), 200_000
    policy = policy_of(head, rows)
    drawn = policy.sample(torch.Generator().manual_seed(1))
    (part,) = action_parts(head, policy, drawn)
    taken = head.to_env(drawn).numpy()
    np.testing.assert_array_equal(part.taken, taken)
    np.testing.assert_allclose(part.mean[0], taken.mean(0, dtype=float), atol=5 * (taken.std(0) / rows**0.5).max())
    np.testing.assert_allclose(part.std[0], taken.std(0, dtype=float), rtol=0.02)
    np.testing.assert_array_equal([part.low, part.high], [space.low, space.high])


@pytest.mark.parametrize("std", [1e-3, 0.3, 1.0, 4.0, 7.0])
@pytest.mark.parametrize("mean", [0.0, -0.7, 3.0])
def test_moments_of_a_squashed_normal_are_the_integrals(mean, std):
    center, width = _squashed(torch.tensor([mean], dtype=torch.float64), torch.tensor([std], dtype=torch.float64))
    normal = stats.norm(mean, std)
    first, second = (
        normal.expect(lambda z, k=k: np.tanh(z) ** k, lb=mean - 9 * std, ub=mean + 9 * std) for k in (1, 2)
    )
    assert center.item() == pytest.approx(first, abs=2e-3)
    assert width.item() == pytest.approx((second - first**2) ** 0.5, rel=5e-3)


def test_a_draw_beyond_the_box_is_shown_where_it_fell():
    head = head_of(BOX)
    policy = policy_of(head, 1000)
    drawn = policy.sample(torch.Generator().manual_seed(0))
    (clipped,), (raw,) = action_parts(head, policy, drawn), action_parts(head, policy, drawn, drawn=True)
    outside = (raw.taken < BOX.low) | (raw.taken > BOX.high)
    assert 0.05 < outside.mean() < 0.9
    np.testing.assert_allclose(raw.taken.clip(BOX.low, BOX.high), clipped.taken, rtol=1e-5, atol=1e-5)
    middle, half = (BOX.low + BOX.high) / 2, (BOX.high - BOX.low) / 2
    np.testing.assert_allclose(raw.taken, middle + half * drawn.numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    ("space", "names", "firsts"),
    [
        (spaces.Discrete(4), ["action"], [0]),
        (spaces.Discrete(4, start=-3), ["action"], [-3]),
        (spaces.MultiDiscrete([2, 4], start=[5, -1]), ["action 0", "action 1"], [5, -1]),
        (spaces.MultiDiscrete([[2, 4], [3, 2]]), [f"action {i}" for i in range(4)], [0] * 4),
        (spaces.MultiBinary(3), ["action 0", "action 1", "action 2"], [0, 0, 0]),
    ],
)
def test_probabilities_are_how_often_a_choice_is_taken(space, names, firsts):
    head, rows = head_of(space), 100_000
    policy = policy_of(head, rows)
    parts = action_parts(head, policy, policy.sample(torch.Generator().manual_seed(1)))
    found = numbers_of(parts, 10)
    assert [one.name for one in found] == names
    assert [one.first for one in found] == firsts
    for one in found:
        often = np.bincount(one.taken.astype(int) - one.first, minlength=one.probabilities.shape[-1]) / rows
        np.testing.assert_allclose(one.probabilities[0], often, atol=0.01)
        assert one.probabilities.sum(-1) == pytest.approx(1.0, abs=1e-5)  # no padding included


def test_a_dict_has_a_part_for_each_key_and_each_is_as_if_alone():
    head = head_of(HYBRID, std="gsde")
    policy = policy_of(head, 3)
    drawn = policy.sample(torch.Generator().manual_seed(0))
    parts = action_parts(head, policy, drawn)
    assert [part.key for part in parts] == ["bits", "pick", "turn"] == list(HYBRID.spaces)
    taken = head.to_env(drawn)
    for part, own, distribution in zip(parts, head.parts, policy.parts, strict=True):
        np.testing.assert_array_equal(part.taken.reshape(taken[part.key].shape), taken[part.key].numpy())
        (alone,) = action_parts(own, distribution, distribution.mode())
        for mine, other in ((part.probabilities, alone.probabilities), (part.mean, alone.mean), (part.std, alone.std)):
            np.testing.assert_array_equal(mine, other)
    assert [one.name for one in numbers_of(parts, 9)] == ["bits 0", "bits 1", "pick", "turn 0", "turn 1"]
    assert [one.name for one in numbers_of(parts, 3)] == ["bits 0", "pick", "turn 0"]  # one of every key first
    assert [one.name for one in numbers_of(parts, 4)] == ["bits 0", "bits 1", "pick", "turn 0"]
    assert count(parts) == 5


def test_what_is_illegal_has_no_probability():
    head = head_of(spaces.MultiDiscrete([2, 3]))
    mask = torch.tensor([[True, False, False, True, True]])
    policy = head(torch.zeros(1, 6), mask)
    (part,) = action_parts(head, policy, policy.mode())
    assert (part.probabilities[0][[0, 1], [1, 0]] == 0.0).all()


def test_map_reaches_all_that_has_rows_and_nothing_else():
    part = ActionPart(np.ones((2, 3)), mean=np.ones((2, 3)), std=np.ones((2, 3)), low=np.zeros(3), high=np.ones(3))
    first = part.map(lambda rows: rows[0])
    assert first.taken.shape == first.mean.shape == first.std.shape == first.low.shape == (3,)
    assert first.probabilities is None
