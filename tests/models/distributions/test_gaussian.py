"""Tests of the Gaussian against SciPy, and of its consistency, for every kind of std and for extreme values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats

from ppo_lab.config import ModelConfig
from ppo_lab.models.distributions import DiagonalGaussian, make_head

F64 = torch.float64
BOX = spaces.Box(-1, 1, (2,))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussians(seed=0, per_state=False):
    g = rng(seed)
    return DiagonalGaussian(
        torch.randn(5, 3, generator=g, dtype=F64), torch.randn(*((5, 3) if per_state else (3,)), generator=g, dtype=F64)
    )


@pytest.mark.parametrize("per_state", [False, True])
def test_gaussian_agrees_with_scipy(per_state):
    distribution = gaussians(per_state=per_state)
    x = torch.randn(5, 3, generator=rng(1), dtype=F64)
    each = stats.norm(distribution.mean.numpy(), distribution.std.expand(5, 3).numpy())
    assert np.allclose(distribution.log_prob(x).numpy(), each.logpdf(x.numpy()).sum(-1), rtol=1e-12, atol=1e-12)
    assert np.allclose(distribution.entropy().numpy(), each.entropy().sum(-1), rtol=1e-12, atol=1e-12)
    assert distribution.entropy().shape == (5,)


@pytest.mark.parametrize("per_state", [False, True])
def test_gaussian_samples_with_its_own_density(per_state):
    log_std = torch.tensor([0.5, -1.0])
    distribution = DiagonalGaussian(torch.full((20_000, 2), 3.0), log_std.expand(20_000, 2) if per_state else log_std)
    x = distribution.sample(rng()).numpy()
    assert stats.kstest(x[:, 0], stats.norm(3.0, np.exp(0.5)).cdf).pvalue > 1e-3
    assert stats.kstest(x[:, 1], stats.norm(3.0, np.exp(-1.0)).cdf).pvalue > 1e-3


@pytest.mark.parametrize("per_state", [False, True])
def test_kl_agrees_with_torch_and_is_zero_against_itself(per_state):
    p, q = gaussians(0, per_state), gaussians(1, per_state)
    oracle = torch.distributions.kl_divergence(
        torch.distributions.Normal(p.mean, p.std.expand(5, 3)), torch.distributions.Normal(q.mean, q.std.expand(5, 3))
    ).sum(-1)
    assert torch.allclose(p.kl(q), oracle, rtol=1e-12, atol=0)
    assert torch.equal(p.kl(p), torch.zeros(5, dtype=F64))


def test_a_small_kl_keeps_its_digits_in_float32():
    sure = DiagonalGaussian(torch.zeros(1, 4), torch.full((4,), float(np.log(0.01))))
    assert sure.kl(sure).item() == 0.0
    moved = DiagonalGaussian(torch.full((1, 4), 1e-6), sure.log_std + 1e-4)  # 4 * (1e-8 + (1e-4)^2 / 2 ...)
    ours, exact = sure.kl(moved), _in_float64(sure).kl(_in_float64(moved))
    assert exact.item() < 1e-7
    assert torch.allclose(ours.double(), exact, rtol=1e-2)


def _in_float64(p):
    return DiagonalGaussian(p.mean.double(), p.log_std.double())


@pytest.mark.parametrize("distribution", ["gaussian", "squashed"])
@pytest.mark.parametrize("std", ["free", "state", "gsde"])
@pytest.mark.parametrize("log_std", [-50.0, 50.0])
def test_loss_and_gradient_are_finite_wherever_the_std_is_pushed(distribution, std, log_std):
    head = make_head(BOX, 4, ModelConfig(distribution=distribution, std=std))
    source = (head if distribution == "gaussian" else head.normal).log_std
    (source.bias if std == "state" else source).data.fill_(log_std)
    features = torch.ones(3, 4, requires_grad=True)
    policy = head(features)
    action = policy.sample(rng()).detach()
    (policy.log_prob(action).sum() + policy.entropy().sum() + policy.kl(policy).sum()).backward()
    assert policy.log_prob(action).isfinite().all()
    assert policy.entropy().isfinite().all()
    assert features.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)


@pytest.mark.parametrize("std", ["free", "state"])
def test_bounds_of_the_log_std_are_the_settings(std):
    head = make_head(BOX, 4, ModelConfig(std=std, log_std_min=-1.0, log_std_max=0.5))
    for pushed, kept in ((-3.0, -1.0), (2.0, 0.5), (0.25, 0.25)):
        (head.log_std.bias if std == "state" else head.log_std).data.fill_(pushed)
        assert torch.equal(head(torch.zeros(1, 4)).log_std.expand(1, 2), torch.full((1, 2), kept))


def test_a_std_of_the_state_differs_between_states_and_begins_as_set():
    head = make_head(BOX, 64, ModelConfig(std="state", log_std_init=-1.0))
    features = torch.randn(50, 64, generator=rng())
    log_std = head(features).log_std
    assert log_std.shape == (50, 2)
    assert log_std.std(0).min() > 0
    assert (log_std + 1.0).abs().max() < 0.1
    head(features).log_prob(torch.zeros(50, 2)).sum().backward()
    assert head.log_std.weight.grad.abs().sum() > 0


def test_the_unclipped_sample_is_what_is_scored():
    head = make_head(BOX, 4, ModelConfig(log_std_init=2.0))
    policy = head(torch.zeros(100, 4))
    action = policy.sample(rng())
    assert (action.abs() > 1).any()
    assert (head.to_env(action).abs() <= 1).all()
    each = stats.norm(policy.mean.detach().numpy(), policy.std.detach().numpy())
    assert np.allclose(
        policy.log_prob(action).detach().numpy(), each.logpdf(action.detach().numpy()).sum(-1), atol=1e-4
    )
