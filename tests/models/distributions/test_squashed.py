"""Tests of the squashed Gaussian: a density over the Box, finite for saturated actions too."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import integrate, stats

from ppo_lab.config import ModelConfig
from ppo_lab.models.distributions import DiagonalGaussian, SquashedGaussian, make_head

F64 = torch.float64
SQUASHED = ModelConfig(distribution="squashed")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def squashed(mean, std, log_volume=0.0):
    return SquashedGaussian(
        DiagonalGaussian(torch.tensor([[mean]], dtype=F64), torch.tensor([math.log(std)], dtype=F64)), log_volume
    )


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-2, 2), (300, 500)])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.8, 0.3), (-1.5, 1.0)])
def test_the_density_integrates_to_one_over_the_box(low, high, mean, std):
    log_volume = make_head(spaces.Box(low, high, (1,)), 4, SQUASHED).log_volume
    policy = squashed(mean, std, log_volume)

    def density(a):
        z = math.atanh((a - low) / (high - low) * 2 - 1)
        return policy.log_prob(torch.tensor([[z]], dtype=F64)).exp().item()

    middle = low + (high - low) * (math.tanh(mean) + 1) / 2
    inside = 1e-9 * (high - low)
    total = sum(
        integrate.quad(density, a, b, limit=200, epsabs=1e-9)[0]
        for a, b in ((low + inside, middle), (middle, high - inside))
    )
    assert total == pytest.approx(1.0, abs=1e-6)


def test_log_prob_agrees_with_scipy_and_the_change_of_variables():
    g = rng()
    normal = DiagonalGaussian(torch.randn(6, 3, generator=g, dtype=F64), torch.randn(3, generator=g, dtype=F64) * 0.3)
    z = normal.sample(g)
    each = stats.norm(normal.mean.numpy(), normal.std.numpy()).logpdf(z.numpy()) - np.log1p(-(np.tanh(z.numpy()) ** 2))
    assert np.allclose(SquashedGaussian(normal, 0.0).log_prob(z).numpy(), each.sum(-1), rtol=1e-12, atol=1e-12)


def test_a_saturated_action_keeps_its_likelihood():
    # through atanh of the action this gives 11.69 at z = 9 in float32, and NaN where tanh(z) rounds to 1
    policy = SquashedGaussian(DiagonalGaussian(torch.tensor([[9.0]]), torch.tensor([math.log(0.1)])), 0.0)
    assert policy.log_prob(torch.tensor([[9.0]])).item() == pytest.approx(18.0, abs=5e-3)
    assert squashed(9.0, 0.1).log_prob(torch.tensor([[9.0]], dtype=F64)).item() == pytest.approx(
        -math.log(0.1 * math.sqrt(2 * math.pi)) + 2 * (9 + math.log1p(math.exp(-18)) - math.log(2)), rel=1e-12
    )
    for z in (-200.0, -40.0, 40.0, 200.0):
        far = SquashedGaussian(DiagonalGaussian(torch.tensor([[z]], requires_grad=True), torch.zeros(1)), 0.0)
        assert far.log_prob(torch.tensor([[z]])).isfinite().all()


def test_the_ratio_is_one_at_the_edge_before_any_step():
    head = make_head(spaces.Box(-1, 1, (2,)), 4, SQUASHED)
    head.normal.mean.bias.data.fill_(9.0)
    features = torch.randn(64, 4, generator=rng())
    action = head(features).sample(rng()).detach()
    assert (head.to_env(action) == 1.0).any()  # saturated
    assert torch.equal(head(features).log_prob(action), head(features).log_prob(action))
    chunked = head(features.unsqueeze(0)).log_prob(action.unsqueeze(0))[0]
    assert ((chunked - head(features).log_prob(action)).exp() - 1).abs().max() < 1e-5


@pytest.mark.parametrize("std", [0.05, 0.5, 1.0, 2.0, math.exp(2.0)])
@pytest.mark.parametrize("mean", [0.0, 0.7, -2.5, 5.0])
def test_entropy_agrees_with_monte_carlo_and_with_quadrature(mean, std):
    policy = squashed(mean, std, log_volume=0.25)
    z = torch.normal(mean, std, (200_000, 1), generator=rng(), dtype=F64)
    surprise = -policy.log_prob(z)
    error = surprise.std() / len(z) ** 0.5
    assert abs(policy.entropy().item() - surprise.mean().item()) < 3.5 * error.item()

    def slope(t):
        x = abs(mean + std * t)
        return 2 * (math.log(2) - x - math.log1p(math.exp(-2 * x))) * math.exp(-t * t / 2) / math.sqrt(2 * math.pi)

    corner = min(max(-mean / std, -9.0), 9.0)
    expected = sum(integrate.quad(slope, a, b)[0] for a, b in ((-10, corner), (corner, 10)))
    exact = stats.norm(mean, std).entropy() + expected + 0.25
    assert policy.entropy().item() == pytest.approx(exact, abs=1e-5 if std <= 2 else 0.03)


def test_entropy_has_the_gradient_of_the_expectation():
    mean, log_std = (torch.tensor([x], dtype=F64, requires_grad=True) for x in (0.4, -0.3))

    def entropy(m, s):
        return SquashedGaussian(DiagonalGaussian(m.unsqueeze(0), s), 0.0).entropy()

    assert torch.autograd.gradcheck(entropy, (mean, log_std))


def test_kl_is_that_of_the_normals_and_zero_against_itself():
    p, q = squashed(0.3, 0.5), squashed(-0.2, 0.9)
    z = torch.normal(0.3, 0.5, (200_000, 1), generator=rng(), dtype=F64)
    log_ratio = p.log_prob(z) - q.log_prob(z)
    assert abs(p.kl(q).item() - log_ratio.mean().item()) < 4 * log_ratio.std().item() / len(z) ** 0.5
    assert p.kl(p).item() == 0.0
