"""Tests of discrete distributions: agreement with SciPy, samples match log_prob, the KL needs no epsilon."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats

from ppo_lab.config import ModelConfig
from ppo_lab.models.distributions import Categorical, make_head

F64 = torch.float64


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def head_of(space, num_features=6, seed=0):
    """Return a head that is far from uniform, in float64."""
    torch.manual_seed(seed)
    head = make_head(space, num_features, ModelConfig()).double()
    head.logits.weight.data.mul_(100)
    return head


def every_action(space):
    """Return all joint actions, counted from 0 in each component, (number, k)."""
    sizes = space.nvec.ravel() if isinstance(space, spaces.MultiDiscrete) else [2] * int(np.prod(space.shape))
    return torch.tensor(list(itertools.product(*map(range, sizes))))


def test_categorical_agrees_with_scipy():
    logits = torch.randn(7, 4, generator=rng(), dtype=F64)
    distribution = Categorical(logits)
    p = logits.softmax(-1).numpy()
    for action in range(4):
        expected = [stats.multinomial(1, row).logpmf(np.eye(4)[action]) for row in p]
        ours = distribution.log_prob(torch.full((7,), action)).numpy()
        assert np.allclose(ours, expected, rtol=1e-12, atol=1e-12)
    assert np.allclose(distribution.entropy().numpy(), stats.entropy(p, axis=1), rtol=1e-12, atol=1e-12)
    assert np.allclose(distribution.probabilities.numpy(), p, rtol=1e-12)
    assert torch.equal(distribution.mode(), logits.argmax(-1))


def test_categorical_samples_with_its_own_probabilities():
    logits = torch.tensor([1.0, 0.0, -1.0, -3.0])
    n = 100_000
    distribution = Categorical(logits.expand(n, 4))
    counts = torch.bincount(distribution.sample(rng()), minlength=4).numpy()
    assert stats.chisquare(counts, distribution.log_probs[0].exp().double().numpy() * n, sum_check=False).pvalue > 1e-4


def test_samples_follow_the_generator_and_leave_the_global_one_alone():
    distribution = Categorical(torch.zeros(50, 5))
    before = torch.get_rng_state()
    assert torch.equal(distribution.sample(rng(3)), distribution.sample(rng(3)))
    assert not torch.equal(distribution.sample(rng(3)), distribution.sample(rng(4)))
    assert torch.equal(torch.get_rng_state(), before)


SPACES = [
    spaces.MultiDiscrete([2, 3, 4]),
    spaces.MultiDiscrete([3, 3]),
    spaces.MultiDiscrete([[1, 2], [3, 2]]),
    spaces.MultiBinary(3),
    spaces.MultiBinary([2, 2]),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_probabilities_of_all_joint_actions_add_up_to_one_and_are_products(space):
    actions = every_action(space)
    policy = head_of(space)(torch.randn(1, 6, generator=rng(), dtype=F64).expand(len(actions), 6))
    log_prob = policy.log_prob(actions)  # (number of joint actions)
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    marginals = policy.probabilities[0]  # (k, n)
    product = torch.stack([marginals[c, actions[:, c]] for c in range(actions.shape[1])]).prod(0)
    assert torch.allclose(log_prob.exp(), product, rtol=1e-12, atol=0)
    assert policy.entropy()[0].item() == pytest.approx(-(log_prob.exp() * log_prob).sum().item(), abs=1e-12)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_joint_samples_come_as_often_as_their_probability_says(space):
    n, actions = 100_000, every_action(space)
    policy = head_of(space).float()(torch.randn(1, 6, generator=rng()).expand(n, 6))
    drawn = policy.sample(rng(1))
    assert drawn.dtype == torch.int64
    assert drawn.shape == (n, actions.shape[1])
    counts = [(drawn == action).all(-1).sum().item() for action in actions]
    assert sum(counts) == n  # nothing else was drawn
    expected = [policy.log_prob(action.expand(n, -1))[0].exp().item() * n for action in actions]
    assert stats.chisquare(counts, expected, sum_check=False).pvalue > 1e-4


def test_padding_changes_nothing():
    """Compare components of different sizes, computed at once, with each computed alone."""
    head = head_of(spaces.MultiDiscrete([2, 5, 3]))
    features = torch.randn(4, 6, generator=rng(), dtype=F64)
    policy, action = head(features), torch.tensor([[1, 4, 0]] * 4)
    alone = [Categorical(part) for part in head.logits(features).split([2, 5, 3], -1)]
    assert torch.allclose(policy.log_prob(action), sum(p.log_prob(a) for p, a in zip(alone, action.T, strict=True)))
    assert torch.allclose(policy.entropy(), sum(p.entropy() for p in alone))
    assert torch.equal(policy.mode(), torch.stack([p.mode() for p in alone], -1))
    loss = (policy.log_prob(action) + policy.entropy()).sum()
    reference = sum((p.log_prob(a) + p.entropy()).sum() for p, a in zip(alone, action.T, strict=True))
    ours, theirs = (torch.autograd.grad(each, head.logits.weight)[0] for each in (loss, reference))
    assert torch.allclose(ours, theirs, rtol=1e-10)


def test_bits_are_bernoulli():
    head = head_of(spaces.MultiBinary(3))
    features = torch.randn(4, 6, generator=rng(), dtype=F64)
    p = head.logits(features).sigmoid().detach().numpy()
    for action in every_action(spaces.MultiBinary(3)):
        expected = stats.bernoulli(p).logpmf(action.numpy()).sum(-1)
        assert np.allclose(head(features).log_prob(action.expand(4, 3)).detach().numpy(), expected, rtol=1e-12)
    assert np.allclose(head(features).entropy().detach().numpy(), stats.bernoulli(p).entropy().sum(-1), rtol=1e-12)
    assert np.array_equal(head(features).mode().numpy(), p > 0.5)


@pytest.mark.parametrize("space", [spaces.Discrete(5), *SPACES], ids=str)
def test_kl_agrees_with_its_definition_and_is_zero_against_itself(space):
    actions = torch.arange(5) if isinstance(space, spaces.Discrete) else every_action(space)
    head, features = head_of(space), torch.randn(2, 1, 6, generator=rng(), dtype=F64).expand(2, len(actions), 6)
    p, q = head(features[0]), head(features[1])
    log_p, log_q = p.log_prob(actions), q.log_prob(actions)
    assert p.kl(q)[0].item() == pytest.approx((log_p.exp() * (log_p - log_q)).sum().item(), rel=1e-12)
    assert p.kl(q)[0].item() > 0.01
    assert not p.kl(p).any()


def test_kl_agrees_with_torch():
    p, q = (torch.randn(6, 4, generator=rng(i), dtype=F64) for i in range(2))
    oracle = torch.distributions.kl_divergence(*(torch.distributions.Categorical(logits=each) for each in (p, q)))
    assert torch.allclose(Categorical(p).kl(Categorical(q)), oracle, rtol=1e-12)
