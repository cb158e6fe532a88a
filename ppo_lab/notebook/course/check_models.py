"""Checks of the exercises of notebooks 06 to 08 on distributions, masks, entities and memory, like those of `check`.

from ppo_lab.notebook import check_models
check_models.masked(my_masked)    "illegal actions still have a probability: their logits have to be -inf, not 0"
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ppo_lab.notebook.course.exercise import Exercise, Solution


def gaussian_log_prob(solution: Solution) -> None:
    """Check my_gaussian_log_prob(action, mean, std) -> (B,); action and mean (B, A), std (A,)."""
    print(GAUSSIAN_LOG_PROB.diagnose(solution))


def squashed_log_prob(solution: Solution) -> None:
    """Check my_squashed_log_prob(z, log_prob) -> log density of tanh(z), (B,); z (B, A), log_prob (B,) that of z."""
    print(SQUASHED_LOG_PROB.diagnose(solution))


def masked(solution: Solution) -> None:
    """Check my_masked(logits, mask) -> probabilities; all (B, n), mask bool."""
    print(MASKED.diagnose(solution))


def pooled(solution: Solution) -> None:
    """Check my_pooled(features, present) -> mean over the entities that are present, (B, f); (B, n, f) and (B, n)."""
    print(POOLED.diagnose(solution))


def remembered(solution: Solution) -> None:
    """Check my_remembered(seen, starts) -> the memory after every step; all (T, N), starts bool."""
    print(REMEMBERED.diagnose(solution))


def _numbers(*shape: int, seed: int, low: float = -2.0, high: float = 2.0) -> Tensor:
    """Draw uniform random numbers in [low, high], (*shape), with one decimal, so that messages are easy to read."""
    drawn = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return ((low + (high - low) * drawn) * 10).round() / 10


# --- densities --------------------------------------------------------------------------------------------------------

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _bell(action: Tensor, mean: Tensor, std: Tensor, log_std: float = 1.0, constant: float = _HALF_LOG_2PI) -> Tensor:
    """Return log N(action; mean, std) of every dimension, (B, A).

    log_std: factor of the log(std) that is subtracted. constant: subtracted too.
    """
    return -0.5 * ((action - mean) / std) ** 2 - log_std * std.log() - constant


GAUSSIAN_LOG_PROB = Exercise(
    name="my_gaussian_log_prob",
    right=lambda action, mean, std: _bell(action, mean, std).sum(-1),
    praise="this is DiagonalGaussian.log_prob",
    cases=(
        ("for one action dimension", (_numbers(5, 1, seed=1), _numbers(5, 1, seed=2), torch.tensor([0.5]))),
        ("for three action dimensions",
         (_numbers(4, 3, seed=3), _numbers(4, 3, seed=4), torch.tensor([0.5, 2.0, 0.1]))),
    ),
    mistakes=(
        (
            "log(std) is missing: without it a wide bell would be as high as a narrow one",
            lambda a, m, s: _bell(a, m, s, log_std=0.0).sum(-1),
        ),
        ("log(std) is added: a wider bell is a lower one", lambda a, m, s: _bell(a, m, s, log_std=-1.0).sum(-1)),
        ("log(2 pi) / 2 is missing: the area is then not 1", lambda a, m, s: _bell(a, m, s, constant=0.0).sum(-1)),
        ("the std is not squared: square all of (action - mean) / std",
         lambda a, m, s: (-0.5 * (a - m) ** 2 / s - s.log() - _HALF_LOG_2PI).sum(-1)),
        ("this is the density: return its logarithm", lambda a, m, s: _bell(a, m, s).sum(-1).exp()),
        ("a mean over the action dimensions instead of a sum", lambda a, m, s: _bell(a, m, s).mean(-1)),
    ),
)  # fmt: skip


def _log_slope(z: Tensor) -> Tensor:
    return (1 - z.tanh() ** 2).log()


_Z = _numbers(5, 2, seed=5)
SQUASHED_LOG_PROB = Exercise(
    name="my_squashed_log_prob",
    right=lambda z, log_prob: log_prob - _log_slope(z).sum(-1),
    praise="where tanh is flat, many values of z map to a small interval, so the density is high",
    cases=(
        ("for one action dimension", (_numbers(5, 1, seed=6), _numbers(5, seed=7))),
        ("for two action dimensions", (_Z, _numbers(5, seed=8))),
    ),
    mistakes=(
        ("the correction is missing: this is the density of z, not of tanh(z)", lambda z, p: p + 0 * z.sum(-1)),
        (
            "the log of the slope is added: subtract it, because the density is higher where tanh is flat",
            lambda z, p: p + _log_slope(z).sum(-1),
        ),
        ("the slope of tanh is 1 - tanh(z)^2: the square is missing", lambda z, p: p - (1 - z.tanh()).log().sum(-1)),
        ("the slope itself is subtracted: take its logarithm", lambda z, p: p - (1 - z.tanh() ** 2).sum(-1)),
        ("a mean over the action dimensions instead of a sum", lambda z, p: p - _log_slope(z).mean(-1)),
    ),
)


# --- masks ------------------------------------------------------------------------------------------------------------


def _masked(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.masked_fill(~mask, -math.inf).softmax(-1)


_LOGITS = _numbers(3, 4, seed=9)
_LEGAL = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0], [1, 1, 0, 1]]).bool()
MASKED = Exercise(
    name="my_masked",
    right=_masked,
    praise="illegal actions have probability 0, and the legal ones sum to 1",
    cases=(
        ("where all actions are legal", (_LOGITS, torch.ones_like(_LEGAL))),
        ("where some actions are illegal", (_LOGITS, _LEGAL)),
    ),
    mistakes=(
        ("the mask is not used", lambda logits, mask: logits.softmax(-1)),
        (
            "illegal actions still have a probability: their logits have to be -inf, not 0",
            lambda logits, mask: (logits * mask).softmax(-1),
        ),
        (
            "the rows do not sum to 1: normalise over the legal actions",
            lambda logits, mask: logits.softmax(-1) * mask,
        ),
        ("upside down: True means legal", lambda logits, mask: _masked(logits, ~mask).nan_to_num(0.0)),
        ("these are logits: softmax is missing", lambda logits, mask: logits.masked_fill(~mask, -math.inf)),
    ),
)


def _pooled(features: Tensor, present: Tensor) -> Tensor:
    return (features * present[..., None]).sum(-2) / present.sum(-1, keepdim=True).clamp(min=1)


_FEATURES = _numbers(3, 4, 2, seed=10)
POOLED = Exercise(
    name="my_pooled",
    right=_pooled,
    praise="it works for any number of entities in any order, and absent ones do not count",
    cases=(
        ("where all entities are present", (_FEATURES, torch.ones_like(_LEGAL))),
        ("where some entities are absent", (_FEATURES, _LEGAL)),
        ("where no entity is present", (_FEATURES[:1], torch.zeros(1, 4, dtype=torch.bool))),
    ),
    mistakes=(
        ("`present` is not used: absent entities count", lambda x, present: x.mean(-2)),
        (
            "divided by the number of all entities: divide by the number of those present",
            lambda x, present: (x * present[..., None]).sum(-2) / x.shape[-2],
        ),
        ("this is the sum: divide by the number of those present", lambda x, present: (x * present[..., None]).sum(-2)),
        (
            "where no entity is present this divides 0 by 0: return 0 there",
            lambda x, present: (x * present[..., None]).sum(-2) / present.sum(-1, keepdim=True),
        ),
        ("upside down: True means that an entity is present", lambda x, present: _pooled(x, ~present)),
    ),
)


# --- memory -----------------------------------------------------------------------------------------------------------

KEPT = 0.5  # fraction of the memory that is kept at every step


def _remembered(seen: Tensor, starts: Tensor) -> Tensor:
    """Return the memory h[t] = KEPT * (0 if starts[t] else h[t - 1]) + seen[t], (T, N)."""
    rows, memory = [], torch.zeros_like(seen[0])
    for row, start in zip(seen, starts, strict=True):
        memory = KEPT * memory.masked_fill(start, 0.0) + row
        rows.append(memory)
    return torch.stack(rows)


def _too_late(seen: Tensor, starts: Tensor) -> Tensor:
    """Return the memory, (T, N), if it is cleared after the first step of an episode instead of before it."""
    return _remembered(seen, torch.cat([torch.zeros_like(starts[:1]), starts[:-1]]))


_SEEN = _numbers(6, 2, seed=11)
_STARTS = torch.zeros(6, 2, dtype=torch.bool)
_ONE, _TWO = _STARTS.clone(), _STARTS.clone()
_ONE[3, 1] = _TWO[2, 0] = _TWO[4, 1] = True
REMEMBERED = Exercise(
    name="my_remembered",
    right=_remembered,
    praise="the memory is cleared before the first step of an episode, and the other environment keeps its memory",
    cases=(
        ("where no episode starts", (_SEEN, _STARTS)),
        ("where one environment starts a new episode", (_SEEN, _ONE)),
        ("where both environments do, at different times", (_SEEN, _TWO)),
    ),
    mistakes=(
        ("the memory is never cleared: where starts is True it is 0 before the step",
         lambda seen, starts: _remembered(seen, torch.zeros_like(starts))),
        ("nothing is remembered: keep half of the memory for the next step", lambda seen, starts: seen.clone()),
        ("the memory of all environments is cleared: clear only that of the one that starts",
         lambda seen, starts: _remembered(seen, starts.any(-1, keepdim=True).expand_as(starts))),
        ("cleared one step too late: the first step of an episode still uses the old memory", _too_late),
        ("the input of the first step of an episode is lost: clear the memory, not the input",
         lambda seen, starts: _remembered(seen.masked_fill(starts, 0.0), starts)),
    ),
)  # fmt: skip
