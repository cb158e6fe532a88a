"""Exercises of the notebooks on policies, bodies and memories; each checks itself as those of `check` do.

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
    """Check my_pooled(features, present) -> mean over the entities that are there, (B, f); (B, n, f) and (B, n)."""
    print(POOLED.diagnose(solution))


def remembered(solution: Solution) -> None:
    """Check my_remembered(seen, starts) -> the memory after every step; all (T, N), starts bool."""
    print(REMEMBERED.diagnose(solution))


def _numbers(*shape: int, seed: int, low: float = -2.0, high: float = 2.0) -> Tensor:
    """Draw uniform random numbers with one decimal, which read well in a message."""
    drawn = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return ((low + (high - low) * drawn) * 10).round() / 10


# --- densities --------------------------------------------------------------------------------------------------------

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _bell(action: Tensor, mean: Tensor, std: Tensor, log_std: float = 1.0, constant: float = _HALF_LOG_2PI) -> Tensor:
    """Return log N(action; mean, std) of every dimension, (B, A); log_std and constant: how much of each is
    subtracted.
    """
    return -0.5 * ((action - mean) / std) ** 2 - log_std * std.log() - constant


GAUSSIAN_LOG_PROB = Exercise(
    name="my_gaussian_log_prob",
    right=lambda action, mean, std: _bell(action, mean, std).sum(-1),
    praise="this is DiagonalGaussian.log_prob",
    cases=(
        ("for one knob", (_numbers(5, 1, seed=1), _numbers(5, 1, seed=2), torch.tensor([0.5]))),
        ("for three knobs", (_numbers(4, 3, seed=3), _numbers(4, 3, seed=4), torch.tensor([0.5, 2.0, 0.1]))),
    ),
    mistakes=(
        (
            "log(std) is missing: without it a wide bell would be as high as a narrow one",
            lambda a, m, s: _bell(a, m, s, log_std=0.0).sum(-1),
        ),
        ("log(std) is added: a wider bell is a lower one", lambda a, m, s: _bell(a, m, s, log_std=-1.0).sum(-1)),
        ("log(2 pi) / 2 is missing: the area is then not 1", lambda a, m, s: _bell(a, m, s, constant=0.0).sum(-1)),
        ("the distance is divided by std once: square the whole of (action - mean) / std",
         lambda a, m, s: (-0.5 * (a - m) ** 2 / s - s.log() - _HALF_LOG_2PI).sum(-1)),
        ("this is the density: its logarithm is asked for", lambda a, m, s: _bell(a, m, s).sum(-1).exp()),
        ("a mean over the knobs instead of a sum", lambda a, m, s: _bell(a, m, s).mean(-1)),
    ),
)  # fmt: skip


def _log_slope(z: Tensor) -> Tensor:
    return (1 - z.tanh() ** 2).log()


_Z = _numbers(5, 2, seed=5)
SQUASHED_LOG_PROB = Exercise(
    name="my_squashed_log_prob",
    right=lambda z, log_prob: log_prob - _log_slope(z).sum(-1),
    praise="where tanh is flat many z share little room, and the density piles up",
    cases=(
        ("for one knob", (_numbers(5, 1, seed=6), _numbers(5, seed=7))),
        ("for two knobs", (_Z, _numbers(5, seed=8))),
    ),
    mistakes=(
        ("nothing is corrected: this is the density of z, not of tanh(z)", lambda z, p: p + 0 * z.sum(-1)),
        ("the slope is added: where tanh is flat the density has to rise", lambda z, p: p + _log_slope(z).sum(-1)),
        ("the slope of tanh is 1 - tanh(z)^2: the square is missing", lambda z, p: p - (1 - z.tanh()).log().sum(-1)),
        ("the slope itself is subtracted: take its logarithm", lambda z, p: p - (1 - z.tanh() ** 2).sum(-1)),
        ("a mean over the knobs instead of a sum", lambda z, p: p - _log_slope(z).mean(-1)),
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
    praise="illegal actions have probability 0, and the legal ones share 1 as before",
    cases=(
        ("where all is legal", (_LOGITS, torch.ones_like(_LEGAL))),
        ("where something is illegal", (_LOGITS, _LEGAL)),
    ),
    mistakes=(
        ("the mask is not used", lambda logits, mask: logits.softmax(-1)),
        (
            "illegal actions still have a probability: their logits have to be -inf, not 0",
            lambda logits, mask: (logits * mask).softmax(-1),
        ),
        (
            "the rows do not sum to 1: what was taken from the illegal actions has to go to the legal ones",
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
    praise="any number of entities, in any order, and absent ones count for nothing",
    cases=(
        ("where all are there", (_FEATURES, torch.ones_like(_LEGAL))),
        ("where some are absent", (_FEATURES, _LEGAL)),
        ("where nobody is there", (_FEATURES[:1], torch.zeros(1, 4, dtype=torch.bool))),
    ),
    mistakes=(
        ("`present` is not used: absent entities count", lambda x, present: x.mean(-2)),
        (
            "divided by all entities: divide by how many are there",
            lambda x, present: (x * present[..., None]).sum(-2) / x.shape[-2],
        ),
        ("this is the sum: divide by how many are there", lambda x, present: (x * present[..., None]).sum(-2)),
        (
            "where nobody is there this divides 0 by 0: the mean of nothing is to be 0",
            lambda x, present: (x * present[..., None]).sum(-2) / present.sum(-1, keepdim=True),
        ),
        ("upside down: True means that an entity is there", lambda x, present: _pooled(x, ~present)),
    ),
)


# --- memory -----------------------------------------------------------------------------------------------------------

KEPT = 0.5  # of the memory, at every step


def _remembered(seen: Tensor, starts: Tensor) -> Tensor:
    """Return h[t] = KEPT * (0 if starts[t] else h[t - 1]) + seen[t]."""
    rows, memory = [], torch.zeros_like(seen[0])
    for row, start in zip(seen, starts, strict=True):
        memory = KEPT * memory.masked_fill(start, 0.0) + row
        rows.append(memory)
    return torch.stack(rows)


def _too_late(seen: Tensor, starts: Tensor) -> Tensor:
    """Return the memory as it is when cleared after the first step of an episode instead of before it."""
    return _remembered(seen, torch.cat([torch.zeros_like(starts[:1]), starts[:-1]]))


_SEEN = _numbers(6, 2, seed=11)
_STARTS = torch.zeros(6, 2, dtype=torch.bool)
_ONE, _TWO = _STARTS.clone(), _STARTS.clone()
_ONE[3, 1] = _TWO[2, 0] = _TWO[4, 1] = True
REMEMBERED = Exercise(
    name="my_remembered",
    right=_remembered,
    praise="the old episode is forgotten before the new one is looked at, and the other environment keeps its own",
    cases=(
        ("where no episode starts", (_SEEN, _STARTS)),
        ("where one environment starts anew", (_SEEN, _ONE)),
        ("where both do, at different times", (_SEEN, _TWO)),
    ),
    mistakes=(
        ("nothing is ever forgotten: where starts is True the memory is 0 before the step",
         lambda seen, starts: _remembered(seen, torch.zeros_like(starts))),
        ("nothing is remembered: half of the memory is kept for the next step", lambda seen, starts: seen.clone()),
        ("one environment starts anew and all forget: clear the memory of that one",
         lambda seen, starts: _remembered(seen, starts.any(-1, keepdim=True).expand_as(starts))),
        ("forgotten a step too late: the first step of an episode still knows the last one", _too_late),
        ("what is seen on the first step of an episode is lost: clear the memory, not the step",
         lambda seen, starts: _remembered(seen.masked_fill(starts, 0.0), starts)),
    ),
)  # fmt: skip
