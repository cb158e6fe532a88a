"""The loss in every case of the clip, with its gradient, against hand-written numbers and a float64 oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ppo_lab.ppo.losses import approximate_kl, clipped_surrogate, ppo_loss, value_loss
from tests.oracles import loss as oracle


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [  # d loss / d ratio is -A where the unclipped term counts and 0 where the clip holds
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.0),
        (1.5, 2.0, -2.4, 0.0),  # already moved far enough towards a good action
        (0.5, 2.0, -1.0, -2.0),  # moved away from a good action: pulled back
        (1.5, -2.0, 3.0, 2.0),  # moved towards a bad action: pushed back
        (0.5, -2.0, 1.6, 0.0),  # already moved far enough away from a bad one
        (0.9, -2.0, 1.8, 2.0),
    ],
)
def test_the_cases_of_the_clip(ratio, advantage, loss, gradient):
    r = torch.tensor([ratio], dtype=torch.float64, requires_grad=True)
    result = clipped_surrogate(r, torch.tensor([advantage], dtype=torch.float64), 0.2)
    result.backward()
    assert result.item() == pytest.approx(loss)
    assert r.grad.item() == pytest.approx(gradient)


def test_at_ratio_1_the_gradient_is_the_policy_gradient():
    log_prob = torch.randn(1, 32, dtype=torch.float64, requires_grad=True)
    advantage = torch.randn(1, 32, dtype=torch.float64)
    clipped_surrogate((log_prob - log_prob.detach()).exp(), advantage, 0.2).backward()
    assert torch.allclose(log_prob.grad, -advantage / 32)


def test_value_clipping_takes_the_larger_error_and_stops_the_gradient_beyond_the_clip():
    value = torch.tensor([3.0, 0.5, 5.0], requires_grad=True)
    old, returns = torch.zeros(3), torch.tensor([4.0, 4.0, 1.0])
    loss = value_loss(value, old, returns, 1.0)
    assert loss.item() == pytest.approx(((1 - 4) ** 2 + (0.5 - 4) ** 2 + (5 - 1) ** 2) / 3)
    loss.backward()
    assert value.grad.tolist() == pytest.approx([0.0, 2 * (0.5 - 4) / 3, 2 * (5 - 1) / 3])
    assert value_loss(value, old, returns, None) <= loss
    assert value_loss(old, old, returns, 1.0) == value_loss(old, old, returns, None)


rows = st.integers(1, 6).flatmap(lambda n: st.lists(st.floats(-3, 3), min_size=6 * n, max_size=6 * n))


@given(rows, st.floats(0.05, 0.5), st.sampled_from([None, 0.2]), st.sampled_from([0.0, 0.01]))
def test_equals_the_oracle(numbers, clip, value_clip, ent_coef):
    columns = np.array(numbers).reshape(6, 1, -1)
    log_prob, old_log_prob, value, old_value, advantage, returns = columns
    entropy = np.abs(log_prob)
    t = [torch.as_tensor(c) for c in (log_prob, entropy, value, old_log_prob, old_value, advantage, returns)]
    loss = ppo_loss(*t, clip_coef=clip, vf_coef=0.7, ent_coef=ent_coef, value_clip_coef=value_clip)
    expected = oracle.ppo_loss(
        log_prob[0], entropy[0], value[0], old_log_prob[0], old_value[0], advantage[0], returns[0],
        clip, 0.7, ent_coef, value_clip,
    )  # fmt: skip
    assert [x.item() for x in loss] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_entropy_bonus_raises_entropy():
    logits = torch.tensor([[2.0, 0.0]], requires_grad=True)
    p = logits.log_softmax(-1)
    entropy = -(p.exp() * p).sum(-1)
    zeros = torch.zeros(1)
    ppo_loss(
        zeros, entropy, zeros, zeros, zeros, zeros, zeros, clip_coef=0.2, vf_coef=0.5, ent_coef=0.1
    ).total.backward()
    assert logits.grad[0, 0] > 0 > logits.grad[0, 1]  # a descent step makes the two more equal


@given(st.lists(st.floats(-15, 15), min_size=1, max_size=20))
def test_approximate_kl_is_never_negative(log_ratio):
    assert approximate_kl(torch.tensor(log_ratio, dtype=torch.float64)) >= 0.0


def test_approximate_kl_is_0_without_a_change_and_near_the_kl_of_two_gaussians():
    assert approximate_kl(torch.zeros(5)) == 0.0
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = 0.1
    log_ratio = -0.5 * (x - shift) ** 2 + 0.5 * x**2
    assert approximate_kl(log_ratio).item() == pytest.approx(shift**2 / 2, rel=0.02)


def test_finite_at_extreme_ratios():
    log_prob = torch.tensor([[20.0, -20.0]], requires_grad=True)
    zeros = torch.zeros(1, 2)
    loss = ppo_loss(
        log_prob,
        zeros,
        zeros,
        zeros,
        zeros,
        torch.tensor([[1.0, -1.0]]),
        zeros,
        clip_coef=0.2,
        vf_coef=0.5,
        ent_coef=0.0,
    )
    loss.total.backward()
    assert all(math.isfinite(x.item()) for x in loss)
    assert log_prob.grad.isfinite().all()


def test_dual_clip_bounds_the_loss_and_stops_the_gradient_far_outside():
    """Ye et al. 2020: where A < 0 the objective is at least c A, so a ratio that has exploded has no gradient."""
    for ratio, advantage, expected, moves in (
        (50.0, -2.0, 3.0 * 2.0, False),  # -50 A without it
        (2.0, -2.0, 2.0 * 2.0, True),  # within the second clip: unchanged
        (50.0, 2.0, -1.2 * 2.0, False),  # no effect where A > 0
        (0.5, -2.0, 0.8 * 2.0, False),
    ):
        r = torch.tensor([ratio], dtype=torch.float64, requires_grad=True)
        loss = clipped_surrogate(r, torch.tensor([advantage], dtype=torch.float64), 0.2, dual_clip=3.0)
        loss.backward()
        assert loss.item() == pytest.approx(expected)
        assert bool(r.grad.abs() > 0) == moves
