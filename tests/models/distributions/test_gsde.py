"""Tests of generalised state-dependent exploration: noise is a function of the state, kept for several steps."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces
from scipy import stats

from ppo_lab.config import ModelConfig
from ppo_lab.models.distributions import make_head

N, F, A = 5, 8, 2


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def head_of(distribution="gaussian", **settings):
    torch.manual_seed(0)
    head = make_head(spaces.Box(-1, 1, (A,)), F, ModelConfig(distribution=distribution, std="gsde", **settings))
    normal = head if distribution == "gaussian" else head.normal
    normal.log_std.data = torch.randn(F, A) * 0.3 - 1.0
    return head


def all_stale(n=N):
    return torch.ones(n, dtype=torch.bool)


def test_the_marginal_has_the_variance_that_the_noise_really_has():
    n = 40_000
    head, features = head_of(), torch.randn(1, F, generator=rng()).expand(n, F)
    matrix = head.initial_noise(n)["noise"]
    with torch.no_grad():
        sample = head(features, None, (matrix, all_stale(n))).sample(rng(1))
        policy = head(features[:1])
    for a in range(A):
        marginal = stats.norm(policy.mean[0, a].item(), policy.std[0, a].item())
        assert stats.kstest(sample[:, a].numpy(), marginal.cdf).pvalue > 1e-3
    expected = (features[0].square() @ head.log_std.exp().square()).sqrt()
    assert torch.allclose(policy.std[0], expected, rtol=1e-4)


@pytest.mark.parametrize("distribution", ["gaussian", "squashed"])
def test_noise_is_a_function_of_the_state_until_it_is_stale(distribution):
    head, generator = head_of(distribution), rng(2)
    memory = head.initial_noise(N)
    assert memory["noise"].shape == (N, F, A)
    assert memory["noise_age"].dtype == torch.int64
    features = torch.randn(N, F, generator=rng())

    def noise_of(stale):
        with torch.no_grad():
            policy = head(features, None, (memory["noise"], stale))
            return policy.sample(generator) - policy.mode()

    first = noise_of(all_stale())
    held = memory["noise"].clone()
    assert torch.equal(noise_of(~all_stale()), first)  # the generator has advanced, the noise has not changed
    assert torch.allclose(first, torch.einsum("nf,nfa->na", features, held), atol=1e-5)
    some = torch.tensor([True, False, False, True, False])
    second = noise_of(some)
    assert torch.equal((second == first).all(-1), ~some)
    assert torch.equal((memory["noise"] == held).all(-1).all(-1), ~some)  # written to where memory keeps it
    assert not torch.equal(memory["noise"][0], memory["noise"][3])  # each environment its own


def test_the_generator_moves_on_alike_whatever_is_stale():
    head, features = head_of(), torch.randn(N, F)
    states = []
    for stale in (all_stale(), ~all_stale()):
        generator = rng()
        head(features, None, (head.initial_noise(N)["noise"], stale)).sample(generator)
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_what_was_drawn_is_scored_by_the_marginal_in_rollout_and_update_alike():
    head, features = head_of(), torch.randn(N, F)
    with torch.no_grad():
        policy = head(features, None, (head.initial_noise(N)["noise"], all_stale()))
        action = policy.sample(rng())
    assert torch.equal(policy.log_prob(action), head(features).log_prob(action))


def test_the_std_trains_sigma_and_not_the_features():
    head, features = head_of(), torch.randn(N, F, requires_grad=True)
    head(features).entropy().sum().backward()
    assert features.grad is None or not features.grad.any()
    assert head.log_std.grad.abs().min() > 0
    matrix = head.initial_noise(N)["noise"]
    head(features, None, (matrix, all_stale())).sample(rng())
    assert not matrix.requires_grad  # memory holds no graph


def test_features_that_are_all_zero_are_finite():
    policy = head_of()(torch.zeros(N, F))
    assert policy.log_prob(policy.sample(rng()).detach()).isfinite().all()
    assert policy.entropy().isfinite().all()


def test_other_heads_remember_nothing():
    for settings in (ModelConfig(), ModelConfig(std="state"), ModelConfig(distribution="beta")):
        assert make_head(spaces.Box(-1, 1, (A,)), F, settings).initial_noise(N) == {}
    assert make_head(spaces.Discrete(3), F, ModelConfig(std="gsde")).initial_noise(N) == {}
