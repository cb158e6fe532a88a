"""Tests that heads map actions into the space, both ends included, and reject unsupported spaces and settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from ppo_lab.config import ModelConfig
from ppo_lab.errors import ConfigError, EnvError
from ppo_lab.models.distributions import make_head

BOXES = [(-1, 1), (0, 3), (300, 500), ([-2, -8], [2, 1]), (-1.7, 0.9)]  # the last: low + (high - low) < high in float32


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def box(low, high, shape=(2,)):
    return spaces.Box(np.broadcast_to(np.float32(low), shape).copy(), np.broadcast_to(np.float32(high), shape).copy())


def head_of(space, num_features=4, **settings):
    return make_head(space, num_features, ModelConfig(**settings))


@pytest.mark.parametrize(("low", "high"), BOXES)
def test_box_actions_reach_both_bounds_exactly_and_never_leave(low, high):
    space = box(low, high)
    head = head_of(space)
    ends = head.to_env(torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [-9.0, 9.0]])).numpy()
    assert np.array_equal(ends[0], space.low)
    assert np.array_equal(ends[1], space.high)
    assert np.allclose(ends[2], (space.low + space.high) / 2)
    assert np.array_equal(ends[3], [space.low[0], space.high[1]])
    many = head.to_env(torch.randn(10_000, 2, generator=rng()) * 2)
    assert all(space.contains(a) for a in many.numpy())


@pytest.mark.parametrize(("distribution", "least", "middle", "most"), [("squashed", -50, 0, 50), ("beta", 0, 0.5, 1)])
@pytest.mark.parametrize(("low", "high"), BOXES)
def test_bounded_distributions_reach_both_bounds_too(distribution, least, middle, most, low, high):
    space = box(low, high)
    ends = head_of(space, distribution=distribution).to_env(
        torch.tensor([[least] * 2, [middle] * 2, [most] * 2], dtype=torch.float32)
    )
    assert np.array_equal(ends[0].numpy(), space.low)
    assert np.allclose(ends[1].numpy(), (space.low + space.high) / 2)
    assert np.array_equal(ends[2].numpy(), space.high)


@pytest.mark.parametrize("settings", [{}, {"bound": "clip"}, {"distribution": "squashed"}, {"distribution": "beta"}])
@pytest.mark.parametrize(("low", "high"), BOXES)
def test_what_is_done_stays_inside_whether_exploring_or_not(settings, low, high):
    space = box(low, high)
    head = head_of(space, **settings)
    for parameter in head.parameters():
        parameter.data.mul_(300)
    policy = head(torch.randn(10_000, 4, generator=rng()) * 3)
    for action in (policy.mode(), policy.sample(rng())):
        done = head.to_env(action).detach().numpy()
        assert (done >= space.low).all()
        assert (done <= space.high).all()


def test_stretching_over_itself_is_clipping():
    action = torch.linspace(-3, 3, 40).reshape(20, 2)
    for low, stretches in ((-1.0, False), (-1.0 - 2**-20, True)):
        head = head_of(spaces.Box(np.float32(low), 1.0, (2,), np.float32))
        assert head.stretches == stretches
        assert head.rescale
        torch.testing.assert_close(head.to_env(action), action.clamp(-1, 1), atol=2e-6, rtol=0.0)


def test_clipping_takes_the_numbers_as_they_are():
    head = head_of(box(0, 3), bound="clip")
    assert head.to_env(torch.tensor([[-1.0, 0.5], [2.5, 7.0]])).tolist() == [[0.0, 0.5], [2.5, 3.0]]


def test_a_box_without_a_bound_is_not_stretched_but_keeps_the_bound_it_has():
    head = head_of(spaces.Box(np.float32([-np.inf, 0]), np.float32([np.inf, np.inf])))
    assert head.to_env(torch.tensor([[-7.5, -7.5], [7.5, 7.5]])).tolist() == [[-7.5, 0.0], [7.5, 7.5]]


def test_the_whole_range_of_a_float_is_no_bound():
    most = np.finfo(np.float32).max
    head = head_of(spaces.Box(-most, most, (1,)))
    assert head.to_env(torch.tensor([[-7.5], [0.0], [7.5]])).flatten().tolist() == [-7.5, 0.0, 7.5]
    assert head_of(spaces.Box(-1e300, 1e300, (1,), np.float64)).to_env(torch.tensor([[7.5]])).item() == 7.5


def test_a_float64_box_is_not_left_by_rounding():
    low, high = np.float64(0.7), np.float64(0.1) + 1
    space = spaces.Box(low, high, (1,), np.float64)
    assert float(np.float32(low)) < low  # the result of a plain cast
    done = head_of(space).to_env(torch.tensor([[-1.0], [1.0]])).double().numpy()
    assert all(space.contains(action) for action in done)
    assert np.allclose(done.ravel(), [low, high], rtol=1e-6)


@pytest.mark.parametrize("distribution", ["gaussian", "squashed", "beta"])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_a_box_keeps_its_shape(distribution, shape):
    head = head_of(spaces.Box(-1, 1, shape), distribution=distribution)
    action = head(torch.zeros(5, 4)).sample(rng())
    assert action.shape == (5, int(np.prod(shape)))
    assert head.action_shape == action.shape[1:]
    assert head.to_env(action).shape == (5, *shape)
    assert head.to_env(action.unsqueeze(0)).shape == (1, 5, *shape)


def test_discrete_start_is_counted_in_the_environment_only():
    head = head_of(spaces.Discrete(3, start=5))
    action = head(torch.zeros(200, 4)).sample(rng())
    assert set(action.tolist()) == {0, 1, 2}
    assert set(head.to_env(action).tolist()) == {5, 6, 7}


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([2, 5, 3]),
        spaces.MultiDiscrete([2, 3], start=[4, -1]),
        spaces.MultiDiscrete([[2, 3], [1, 4]], start=[[0, 7], [2, 0]]),
        spaces.MultiBinary(4),
        spaces.MultiBinary([2, 3]),
    ],
    ids=str,
)
def test_many_choices_are_counted_and_shaped_as_the_space_does(space):
    head = head_of(space)
    action = head(torch.zeros(500, 4)).sample(rng())
    assert action.shape == (500, *head.action_shape)
    assert action.min() == 0
    done = head.to_env(action).numpy()
    assert done.shape == (500, *space.shape)
    assert all(space.contains(each.astype(space.dtype)) for each in done)
    lowest = getattr(space, "start", np.zeros(space.shape))
    highest = lowest + getattr(space, "nvec", np.full(space.shape, 2)) - 1
    assert np.array_equal(done.min(0), lowest)
    assert np.array_equal(done.max(0), highest)


@pytest.mark.parametrize(
    "space", [spaces.Text(4), spaces.Graph(spaces.Box(0, 1), None), spaces.Sequence(spaces.Discrete(2))]
)
def test_an_unsupported_space_is_named(space):
    with pytest.raises(EnvError, match=r"not supported; supported: Discrete, MultiDiscrete, MultiBinary, Box"):
        head_of(space)
    with pytest.raises(EnvError, match=r"^key 'say' of the action space: .* not supported; supported: Discrete"):
        head_of(spaces.Dict({"say": space}))


@pytest.mark.parametrize(
    ("space", "settings", "error", "message"),
    [
        (
            spaces.Box(0, 3, (2,), np.int64),
            {},
            EnvError,
            "integers, which are not supported; use Discrete or MultiDiscrete",
        ),
        (spaces.Box(-1, 1, (0,)), {}, EnvError, "nothing to choose"),
        (spaces.Dict({}), {}, EnvError, "nothing to choose"),
        (
            spaces.Box(0, np.inf, (1,)),
            {"distribution": "squashed"},
            EnvError,
            "model.distribution: squashed needs a Box",
        ),
        (spaces.Box(0, np.inf, (9,)), {"distribution": "beta"}, EnvError, r"low \[0, 0, 0, 0, ...\], high \[inf, "),
        (spaces.Box(1, 1, (1,)), {"distribution": "beta"}, EnvError, "low < high"),
        (spaces.Box(-1, 1), {"distribution": "beta", "std": "gsde"}, ConfigError, "model.std: gsde needs"),
        (spaces.Box(-1, 1), {"distribution": "beta", "bound": "clip"}, ConfigError, "model.bound: clip needs"),
        (spaces.Box(-1, 1), {"distribution": "squashed", "bound": "clip"}, ConfigError, "model.bound: clip needs"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(space, settings, error, message):
    with pytest.raises(error, match=message) as caught:
        head_of(space, **settings)
    assert "\n" not in str(caught.value)


def test_a_fresh_policy_is_nearly_uniform_and_its_layers_orthogonal():
    for space in (spaces.Discrete(5), spaces.MultiDiscrete([5, 5]), spaces.MultiBinary(3)):
        head = head_of(space, 64)
        p = head(torch.rand(100, 64)).probabilities
        assert (p - 1 / p.shape[-1]).abs().max() < 0.05
        weight = head.logits.weight.detach()
        assert torch.allclose(weight @ weight.T, 1e-4 * torch.eye(len(weight)), atol=1e-8)
        assert not head.logits.bias.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "settings",
    [{}, {"std": "state"}, {"std": "gsde"}, {"distribution": "squashed", "std": "gsde"}, {"distribution": "beta"}],
)
def test_box_heads_compute_in_float32(dtype, settings):
    head = head_of(box(-1, 1), 16, **settings)
    features = torch.randn(50, 16, generator=rng())
    exact = head(features.to(dtype).float())
    action = exact.sample(rng()).detach()
    for within in (torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False)):
        with within:
            policy = head(features.to(dtype))
            assert policy.mode().dtype == torch.float32
            assert torch.equal(policy.log_prob(action), exact.log_prob(action))
            assert torch.equal(policy.entropy(), exact.entropy())
            assert torch.equal(head(features.to(dtype).float()).log_prob(action), exact.log_prob(action))
