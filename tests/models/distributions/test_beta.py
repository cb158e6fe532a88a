"""Tests of the Beta distribution: a density over the Box, finite at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import integrate, stats

from ppo_lab.config import ModelConfig
from ppo_lab.models.distributions import Beta, make_head
from ppo_lab.models.distributions.beta import EDGE

F64 = torch.float64
BETA = ModelConfig(distribution="beta")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def betas(seed=0, rows=6, dtype=F64):
    a, b = torch.rand(2, rows, 3, generator=rng(seed), dtype=dtype) * 8
    return Beta(a, b, 0.0)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-2, 2), (300, 500)])
@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (0.7, 0.7), (4.0, 0.5)])
def test_the_density_integrates_to_one_over_the_box(low, high, a, b):
    log_volume = make_head(spaces.Box(low, high, (1,)), 4, BETA).log_volume
    policy = Beta(torch.tensor([[a]], dtype=F64), torch.tensor([[b]], dtype=F64), log_volume)

    def density(action):
        return policy.log_prob(torch.tensor([[(action - low) / (high - low)]], dtype=F64)).exp().item()

    assert integrate.quad(density, low, high)[0] == pytest.approx(1.0, abs=1e-6)


def test_it_agrees_with_scipy():
    policy = betas()
    x = policy.sample(rng())
    each = stats.beta(1 + policy.a.numpy(), 1 + policy.b.numpy())
    assert np.allclose(policy.log_prob(x).numpy(), each.logpdf(x.numpy()).sum(-1), rtol=1e-12, atol=1e-12)
    assert np.allclose(policy.entropy().numpy(), each.entropy().sum(-1), rtol=1e-10, atol=1e-10)
    assert np.allclose(policy.mean.numpy(), each.mean(), rtol=1e-12)
    assert np.allclose(policy.std.numpy(), each.std(), rtol=1e-12)


def test_float32_keeps_the_digits_of_a_policy_that_is_sure():
    a, b = torch.full((1, 1), 900.0), torch.full((1, 1), 1100.0)
    x = torch.tensor([[0.45]])
    exact = stats.beta(901, 1101).logpdf(float(x))
    assert Beta(a, b, 0.0).log_prob(x).item() == pytest.approx(exact, abs=1e-5)
    assert Beta(a, b, 0.0).log_prob(x).dtype == torch.float32


def test_it_samples_with_its_own_density():
    n = 50_000
    policy = Beta(torch.full((n, 1), 0.5), torch.full((n, 1), 2.0), 0.0)
    x = policy.sample(rng())
    assert stats.kstest(x[:, 0].numpy(), stats.beta(1.5, 3.0).cdf).pvalue > 1e-3
    assert torch.equal(x, policy.sample(rng()))
    surprise = -policy.log_prob(x)
    assert abs(policy.entropy()[0].item() - surprise.mean().item()) < 3.5 * surprise.std().item() / n**0.5


def test_the_mode_is_where_the_density_is_highest():
    policy, grid = betas(), torch.linspace(0.001, 0.999, 999, dtype=F64)
    for d in range(3):
        one = Beta(policy.a[:, d : d + 1, None], policy.b[:, d : d + 1, None], 0.0)  # (6, 1, 1)
        highest = grid[one.log_prob(grid[None, :, None]).argmax(-1)]
        assert (policy.mode()[:, d] - highest).abs().max() <= 0.0011
    assert Beta(torch.zeros(1, 1), torch.zeros(1, 1), 0.0).mode().item() == 0.5  # uniform: the middle


@pytest.mark.parametrize("push", [-200.0, -20.0, 20.0, 1e6])
def test_everything_is_finite_wherever_it_is_pushed(push):
    head = make_head(spaces.Box(-2, 2, (2,)), 4, BETA)
    head.concentration.bias.data[:2] = push
    policy = head(torch.ones(100, 4))
    action = policy.sample(rng())
    assert (action >= EDGE).all()
    assert (action <= 1 - EDGE).all()
    for x in (action, torch.full_like(action, EDGE), torch.full_like(action, 1 - EDGE), policy.mode().detach()):
        head.zero_grad()
        policy = head(torch.ones(100, 4))
        loss = policy.log_prob(x).mean() + policy.entropy().mean() + policy.kl(policy).mean()
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad.isfinite().all() for p in head.parameters())


def test_samples_keep_their_distance_from_the_edges():
    pressed, free = torch.full((20_000, 1), 1e4), torch.zeros(20_000, 1)
    assert Beta(free, pressed, 0.0).sample(rng()).min().item() == pytest.approx(EDGE, rel=1e-6)
    assert Beta(pressed, free, 0.0).sample(rng()).max().item() == pytest.approx(1 - EDGE, abs=1e-7)


def test_no_policy_is_surer_than_float32_can_tell():
    head = make_head(spaces.Box(-2, 2, (2,)), 4, BETA)
    head.concentration.bias.data.fill_(1e6)
    assert head(torch.ones(1, 4)).std.min() > 3e-3


def test_kl_agrees_with_torch_and_is_zero_against_itself():
    p, q = betas(0), betas(1)
    oracle = torch.distributions.kl_divergence(
        *(torch.distributions.Beta(1 + each.a, 1 + each.b) for each in (p, q))
    ).sum(-1)
    assert torch.allclose(p.kl(q), oracle, rtol=1e-10)
    assert torch.equal(p.kl(p), torch.zeros(6, dtype=F64))


def test_a_fresh_policy_explores_the_whole_box():
    head = make_head(spaces.Box(-2, 2, (1,)), 64, BETA)
    policy = head(torch.randn(20, 64, generator=rng()))
    assert (policy.a - math.log(2.0)).abs().max() < 0.05
    assert (policy.mean - 0.5).abs().max() < 0.02
