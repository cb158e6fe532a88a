"""Distributions agree with SciPy and with themselves; heads map actions into the space, both ends included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats

from ppo_lab.distributions import Categorical, DiagonalGaussian, make_head
from ppo_lab.errors import EnvError


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_categorical_agrees_with_scipy():
    logits = torch.randn(7, 4, generator=rng(), dtype=torch.float64)
    distribution = Categorical(logits)
    p = logits.softmax(-1).numpy()
    for action in range(4):
        expected = [stats.rv_discrete(values=(range(4), row / row.sum())).logpmf(action) for row in p]
        assert np.allclose(distribution.log_prob(torch.full((7,), action)).numpy(), expected)
    assert np.allclose(distribution.entropy().numpy(), stats.entropy(p, axis=1))
    assert torch.equal(distribution.mode(), logits.argmax(-1))


def test_categorical_samples_with_its_own_probabilities():
    logits = torch.tensor([1.0, 0.0, -1.0, -3.0])
    n = 100_000
    distribution = Categorical(logits.expand(n, 4))
    counts = torch.bincount(distribution.sample(rng()), minlength=4).numpy()
    assert stats.chisquare(counts, distribution.log_probs[0].exp().double().numpy() * n, sum_check=False).pvalue > 1e-4


def test_gaussian_agrees_with_scipy():
    mean, log_std = (
        torch.randn(5, 3, generator=rng(), dtype=torch.float64),
        torch.tensor([-1.0, 0.0, 0.7], dtype=torch.float64),
    )
    distribution = DiagonalGaussian(mean, log_std)
    x = torch.randn(5, 3, generator=rng(1), dtype=torch.float64)
    each = stats.norm(mean.numpy(), log_std.exp().numpy())
    assert np.allclose(distribution.log_prob(x).numpy(), each.logpdf(x.numpy()).sum(-1), atol=1e-12)
    assert np.allclose(distribution.entropy().numpy(), each.entropy().sum(-1), atol=1e-12)
    assert distribution.entropy().shape == (5,)


def test_gaussian_samples_with_its_own_density():
    distribution = DiagonalGaussian(torch.full((20_000, 2), 3.0), torch.tensor([0.5, -1.0]))
    x = distribution.sample(rng()).numpy()
    assert stats.kstest(x[:, 0], stats.norm(3.0, np.exp(0.5)).cdf).pvalue > 1e-3
    assert stats.kstest(x[:, 1], stats.norm(3.0, np.exp(-1.0)).cdf).pvalue > 1e-3


@pytest.mark.parametrize("log_std", [-50.0, 50.0])
def test_gaussian_is_finite_wherever_its_std_is_pushed(log_std):
    head = make_head(spaces.Box(-1, 1, (2,)), 4, 0.0)
    head.log_std.data.fill_(log_std)
    distribution = head(torch.ones(3, 4))
    action = distribution.sample(rng())
    (distribution.log_prob(action).sum() + distribution.entropy().sum()).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)
    assert distribution.log_prob(action).isfinite().all()


def test_samples_follow_the_generator_and_leave_the_global_one_alone():
    distribution = Categorical(torch.zeros(50, 5))
    before = torch.get_rng_state()
    assert torch.equal(distribution.sample(rng(3)), distribution.sample(rng(3)))
    assert not torch.equal(distribution.sample(rng(3)), distribution.sample(rng(4)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 3), (300, 500), ([-2, -8], [2, 1])])
def test_box_actions_reach_both_bounds_exactly_and_never_leave(low, high):
    shape = (2,)
    space = spaces.Box(np.broadcast_to(np.float32(low), shape).copy(), np.broadcast_to(np.float32(high), shape).copy())
    head = make_head(space, 4, 0.0)
    ends = head.to_env(torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [-9.0, 9.0]])).numpy()
    assert np.array_equal(ends[0], space.low)
    assert np.array_equal(ends[1], space.high)
    assert np.allclose(ends[2], (space.low + space.high) / 2)
    assert np.array_equal(ends[3], [space.low[0], space.high[1]])
    many = head.to_env(torch.randn(10_000, 2, generator=rng()) * 2)
    assert all(space.contains(a) for a in many.numpy())


def test_a_box_without_a_bound_is_not_stretched_but_keeps_the_bound_it_has():
    head = make_head(spaces.Box(np.float32([-np.inf, 0]), np.float32([np.inf, np.inf])), 4, 0.0)
    assert head.to_env(torch.tensor([[-7.5, -7.5], [7.5, 7.5]])).tolist() == [[-7.5, 0.0], [7.5, 7.5]]


def test_a_box_of_more_dimensions_keeps_its_shape():
    head = make_head(spaces.Box(-1, 1, (2, 3)), 4, 0.0)
    action = head(torch.zeros(5, 4)).sample(rng())
    assert action.shape == (5, 6)
    assert head.to_env(action).shape == (5, 2, 3)


def test_discrete_start_is_counted_in_the_environment_only():
    head = make_head(spaces.Discrete(3, start=5), 4, 0.0)
    action = head(torch.zeros(200, 4)).sample(rng())
    assert set(action.tolist()) == {0, 1, 2}
    assert set(head.to_env(action).tolist()) == {5, 6, 7}


@pytest.mark.parametrize("space", [spaces.MultiBinary(3), spaces.Text(4), spaces.MultiDiscrete([2, 3])])
def test_an_unsupported_space_is_named(space):
    with pytest.raises(EnvError, match=r"not supported; supported: Discrete and Box"):
        make_head(space, 4, 0.0)


def test_a_fresh_policy_is_nearly_uniform():
    head = make_head(spaces.Discrete(5), 64, 0.0)
    assert (head(torch.rand(100, 64)).log_probs.exp() - 0.2).abs().max() < 0.05
