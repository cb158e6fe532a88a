"""Tests of masks: illegal actions have probability and gradient exactly 0; masks without a legal action are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats

from ppo_lab.config import ModelConfig
from ppo_lab.errors import EnvError
from ppo_lab.models.distributions import Categorical, check_mask, make_head

F = 6
SPACES = [
    spaces.Discrete(5, start=3),
    spaces.MultiDiscrete([2, 5, 3]),
    spaces.MultiDiscrete([3, 3]),
    spaces.MultiBinary(4),
    spaces.Dict({"a": spaces.MultiDiscrete([4, 2]), "b": spaces.Box(-1, 1, (2,)), "c": spaces.Discrete(3)}),
]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def head_of(space):
    torch.manual_seed(0)
    return make_head(space, F, ModelConfig())


def masks_of(head, rows, seed=0):
    """Return random masks (rows, K) that leave each component at least one choice."""
    parts = []
    for i, n in enumerate(head.mask_layout):
        part = torch.rand(rows, n, generator=rng(seed + i)) < 0.4
        part[torch.arange(rows), torch.randint(n, (rows,), generator=rng(seed + 100 + i))] = True
        parts.append(part)
    return torch.cat(parts, -1)


def is_legal(head, mask, action):
    """Return whether all discrete columns of an action (rows, k) are legal, (rows,) bool."""
    columns = action if action.dim() == 2 else action.unsqueeze(-1)
    discrete = [c for c in range(columns.shape[1]) if action.dtype == torch.int64 or c not in (2, 3)]  # 2, 3: the Box
    parts = mask.split(list(head.mask_layout), -1)
    return torch.stack(
        [
            part.gather(-1, columns[:, c].long().unsqueeze(-1)).squeeze(-1)
            for c, part in zip(discrete, parts, strict=True)
        ]
    ).all(0)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_nothing_illegal_is_ever_drawn(space):
    n = 100_000
    head = head_of(space)
    mask = masks_of(head, n)
    policy = head(torch.randn(n, F, generator=rng()), mask)
    assert is_legal(head, mask, policy.sample(rng(1))).all()
    assert is_legal(head, mask, policy.mode()).all()
    assert policy.log_prob(policy.sample(rng(1))).isfinite().all()
    assert policy.entropy().isfinite().all()


@pytest.mark.parametrize("space", SPACES[:4], ids=str)
def test_illegal_means_probability_zero_and_gradient_zero(space):
    head, rows = head_of(space), 50
    mask = masks_of(head, rows)
    bias = head.logits.bias
    policy = head(torch.randn(rows, F, generator=rng()), mask)
    if isinstance(space, spaces.Discrete):
        assert torch.equal(policy.probabilities > 0, mask)
    for row in range(rows):
        one = head(torch.randn(1, F, generator=rng(row)), mask[row : row + 1])
        action = one.sample(rng(row))
        (gradient,) = torch.autograd.grad((one.log_prob(action) + one.entropy()).sum(), bias)
        allowed = mask[row]
        if isinstance(space, spaces.MultiBinary):  # one logit of two choices: it matters where both are legal
            allowed = allowed.view(-1, 2).all(-1)
        assert torch.equal(gradient[~allowed], torch.zeros(int((~allowed).sum())))
        assert gradient.isfinite().all()


def test_a_masked_policy_is_the_policy_over_what_is_legal():
    logits = torch.randn(1, 6, generator=rng(), dtype=torch.float64)
    head = make_head(spaces.Discrete(6), F, ModelConfig()).double()
    head.logits.weight.data.zero_()
    head.logits.bias.data = logits[0]
    mask = torch.tensor([[True, False, True, True, False, False]])
    policy, alone = head(torch.zeros(1, F, dtype=torch.float64), mask), Categorical(logits[:, [0, 2, 3]])
    assert torch.allclose(policy.probabilities[:, [0, 2, 3]], alone.probabilities, rtol=1e-12)
    assert policy.entropy().item() == pytest.approx(stats.entropy(alone.probabilities[0].numpy()), rel=1e-12)
    other = head(torch.zeros(1, F, dtype=torch.float64), mask)
    assert policy.kl(other).item() == 0.0
    head.logits.bias.data = logits[0].flip(0)
    moved = head(torch.zeros(1, F, dtype=torch.float64), mask)
    assert policy.kl(moved).item() == pytest.approx(
        alone.kl(Categorical(logits.flip(1)[:, [0, 2, 3]])).item(), rel=1e-12
    )
    assert policy.log_prob(torch.tensor([1])).exp().item() == 0.0


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_rollout_and_update_agree_under_masks(space):
    head, rows = head_of(space), 64
    features, mask = torch.randn(rows, F, generator=rng()), masks_of(head, rows)
    action = head(features, mask).sample(rng()).detach()
    then = head(features, mask).log_prob(action)
    now = head(features.view(8, 8, F), mask.view(8, 8, -1)).log_prob(action.view(8, 8, *action.shape[1:]))
    assert torch.allclose(now.flatten(), then, atol=1e-6)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_everything_legal_is_no_mask(space):
    head, features = head_of(space), torch.randn(9, F, generator=rng())
    free, masked = head(features), head(features, torch.ones(9, head.mask_size, dtype=torch.bool))
    action = free.sample(rng())
    assert torch.equal(action, masked.sample(rng()))
    assert torch.equal(free.log_prob(action), masked.log_prob(action))
    assert torch.equal(free.entropy(), masked.entropy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_get_a_float32_policy(dtype):
    head = head_of(SPACES[0])
    features, mask = torch.randn(500, F, generator=rng()), masks_of(head, 500)
    policy, exact = head(features.to(dtype), mask), head(features.to(dtype).float(), mask)
    assert torch.equal(policy.log_probs, exact.log_probs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(features.to(dtype), mask).log_probs, exact.log_probs)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_row_without_a_legal_action_is_no_nan(space):
    """Check that the policy still samples existing actions; the caller raises the error later."""
    head, n = head_of(space), 1000
    policy = head(torch.randn(n, F, generator=rng()), torch.zeros(n, head.mask_size, dtype=torch.bool))
    action = policy.sample(rng())
    assert is_legal(head, torch.ones(n, head.mask_size, dtype=torch.bool), action).all()  # gather: the index exists
    assert policy.log_prob(action).isfinite().all()
    assert policy.entropy().isfinite().all()
    (policy.log_prob(action.detach()).sum() + policy.entropy().sum()).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)


def test_the_environment_without_a_legal_action_is_named():
    mask = torch.ones(4, 5, dtype=torch.bool)
    check_mask(mask, (5,))
    mask[2] = False
    with pytest.raises(EnvError, match=r"^environment 2 has no legal action: its action_mask is False everywhere$"):
        check_mask(mask, (5,))
    rollout = torch.ones(7, 4, 5, dtype=torch.bool)
    rollout[6, 1, 2:] = False
    check_mask(rollout, (5,))
    with pytest.raises(EnvError, match=r"^environment 1 has no legal action for component 1 of the action at step 6 "):
        check_mask(rollout, (2, 3))


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(EnvError, match=r"action_mask has 4 entries; the action space takes 5: 2 \+ 3"):
        check_mask(torch.ones(3, 4, dtype=torch.bool), (2, 3))
    with pytest.raises(EnvError, match=r"action_mask has 4 entries; the action space takes 0"):
        check_mask(torch.ones(3, 4, dtype=torch.bool), ())


@pytest.mark.parametrize(
    ("space", "layout"),
    [
        (SPACES[0], (5,)),
        (SPACES[1], (2, 5, 3)),
        (SPACES[3], (2, 2, 2, 2)),
        (SPACES[4], (4, 2, 3)),
        (spaces.Box(0, 1), ()),
    ],
    ids=str,
)
def test_the_layout_of_the_mask(space, layout):
    head = head_of(space)
    assert (head.mask_layout, head.mask_size) == (layout, sum(layout))


def test_bits_may_be_held_to_either_value():
    head = head_of(spaces.MultiBinary(3))
    mask = torch.tensor([[True, False, False, True, True, True]])  # bit 0 is 0, bit 1 is 1, bit 2 is free
    drawn = head(torch.zeros(1000, F), mask.expand(1000, 6)).sample(rng()).numpy()
    assert not drawn[:, 0].any()
    assert drawn[:, 1].all()
    assert 0.3 < drawn[:, 2].mean() < 0.7
    assert head(torch.zeros(1, F), mask).entropy().item() == pytest.approx(np.log(2), abs=1e-6)


def test_masks_of_numbers_count_as_bool():
    head, features = head_of(SPACES[0]), torch.randn(20, F)
    mask = masks_of(head, 20)
    assert torch.equal(head(features, mask.to(torch.int8)).log_probs, head(features, mask).log_probs)
