"""Exercises that check themselves: the reader's function against the library's, with a guess at what went wrong.

    from ppo_lab.notebook import check
    check.gae(my_gae)    "your result ignores `done`: the trace leaked over the end of an episode"

A function that returns None is an exercise nobody has begun: "not yet". What the reader's code raises, it raises here.
Every known mistake stands beside the right answer as a formula, and is recognised by its numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ppo_lab.notebook.course.exercise import Exercise, Solution
from ppo_lab.ppo import advantages, losses


def gae(solution: Solution) -> None:
    """Check my_gae(reward, value, next_value, terminated, done, gamma, gae_lambda) -> advantage, all (T, N)."""
    print(GAE.diagnose(solution))


def ratio(solution: Solution) -> None:
    """Check my_ratio(log_prob, old_log_prob) -> ratio, all (B,)."""
    print(RATIO.diagnose(solution))


def clipped_surrogate(solution: Solution) -> None:
    """Check my_clipped_surrogate(ratio, advantage, clip_coef) -> loss (); ratio and advantage (B,)."""
    print(CLIPPED_SURROGATE.diagnose(solution))


def normalized(solution: Solution) -> None:
    """Check my_normalized(advantage) -> advantage with mean 0 and std 1, both (B,)."""
    print(NORMALIZED.diagnose(solution))


def _numbers(*shape: int, seed: int, low: float, high: float) -> Tensor:
    """Draw uniform random numbers with one decimal, which read well in a message."""
    drawn = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return ((low + (high - low) * drawn) * 10).round() / 10


# --- advantages -------------------------------------------------------------------------------------------------------


def _stretch(ended: tuple[int, int] | None, cut_off: tuple[int, int] | None) -> tuple[Any, ...]:
    """Make six steps of two environments; (t, n): where the task ended, and where it was cut off."""
    reward, value = _numbers(6, 2, seed=1, low=-1, high=2), _numbers(6, 2, seed=2, low=1, high=5)
    next_value = torch.cat([value[1:], _numbers(1, 2, seed=3, low=1, high=5)])  # (6, 2)
    terminated, done = torch.zeros(2, 6, 2, dtype=torch.bool)
    if ended is not None:
        terminated[ended] = done[ended] = True
        next_value[ended] = 7.0  # a number that may not be used
    if cut_off is not None:
        done[cut_off] = True
        next_value[cut_off] = 6.0  # not value[t + 1], which is another episode's
    return reward, value, next_value, terminated, done, 0.9, 0.8


def _gae(r: Tensor, v: Tensor, v_next: Tensor, term: Tensor, done: Tensor, gamma: float, lam: float) -> Tensor:
    return advantages.gae(r, v, v_next, term, done, torch.ones_like(done), gamma, lam)[0]


def _shifted(v: Tensor, v_next: Tensor) -> Tensor:
    return torch.cat([v[1:], v_next[-1:]])


def _never(flag: Tensor) -> Tensor:
    return torch.zeros_like(flag)


def _forwards(r: Tensor, v: Tensor, w: Tensor, term: Tensor, done: Tensor, gamma: float, lam: float) -> Tensor:
    return _gae(r.flip(0), v.flip(0), w.flip(0), term.flip(0), done.flip(0), gamma, lam).flip(0)


GAE = Exercise(
    name="my_gae",
    right=_gae,
    praise="these are the numbers of ppo_lab.gae",
    cases=(
        ("in the middle of an episode", _stretch(None, None)),
        ("where an episode ends", _stretch((2, 0), None)),
        ("where an episode is cut off", _stretch((2, 0), (3, 1))),
    ),
    mistakes=(
        (
            "your result uses neither `terminated` nor `done`: it looks into the next episode",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, _never(term), _never(done), g, lam),
        ),
        (
            "your result ignores `done`: the trace leaked over the end of an episode",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, term, _never(done), g, lam),
        ),
        (
            "your result ignores `terminated`: after the story has ended there is nothing left to expect",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, _never(term), done, g, lam),
        ),
        (
            "a cut-off counts as an ending: where only the film stopped, next_value is still expected",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, done, done, g, lam),
        ),
        (
            "the trace leaked over a cut-off: `done` cuts it, not `terminated`",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, term, term, g, lam),
        ),
        (
            "`terminated` and `done` have changed places: `terminated` cuts what is expected, `done` cuts the trace",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, done, term, g, lam),
        ),
        (
            "value[t + 1] is not next_value[t] where an episode was cut off: it belongs to another episode",
            lambda r, v, w, term, done, g, lam: _gae(r, v, _shifted(v, w), term, done, g, lam),
        ),
        (
            "gamma is missing in delta: r + gamma * next_value - value",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w / g, term, done, g, lam),
        ),
        (
            "gamma is missing in the trace: it shrinks by gamma * gae_lambda a step",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w * g, term, done, 1.0, lam),
        ),
        (
            "gae_lambda is missing in the trace: it shrinks by gamma * gae_lambda a step",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, term, done, g, 1.0),
        ),
        (
            "these are the deltas: the later ones are still to be added, each shrunk by gamma * gae_lambda a step",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, term, done, g, 0.0),
        ),
        (
            "the critic's value is not subtracted: delta is r + gamma * next_value - value",
            lambda r, v, w, term, done, g, lam: _gae(r, torch.zeros_like(v), w, term, done, g, lam),
        ),
        (
            "these are the returns: an advantage is without the value",
            lambda r, v, *rest: _gae(r, v, *rest) + v,
        ),
        ("you walked forwards: what comes later counts for earlier steps, so begin at the last row", _forwards),
    ),
)

# --- the leash --------------------------------------------------------------------------------------------------------

_LOG_PROB = -_numbers(6, seed=4, low=0.2, high=2.5)
RATIO = Exercise(
    name="my_ratio",
    right=lambda new, old: (new - old).exp(),
    praise="1 where nothing has changed, 2 where the action has become twice as likely",
    cases=(
        ("for a policy that has changed", (_LOG_PROB, -_numbers(6, seed=5, low=0.2, high=2.5))),
        ("for a policy that has not changed", (_LOG_PROB, _LOG_PROB)),
    ),
    mistakes=(
        ("this is the logarithm of the ratio: exp() is missing", lambda new, old: new - old),
        ("upside down: it says how much more likely the action used to be", lambda new, old: (old - new).exp()),
        ("dividing logarithms is not dividing probabilities: subtract, then exp()", lambda new, old: new / old),
        ("this is the difference of the probabilities: the ratio divides them", lambda new, old: new.exp() - old.exp()),
    ),
    gradient=True,
)


def _inside(r: Tensor, eps: float) -> Tensor:
    return r.clamp(1 - eps, 1 + eps)


_ADVANTAGE = torch.tensor([1.5, -0.5, 0.8, -2.0, 1.0, -1.2])
CLIPPED_SURROGATE = Exercise(
    name="my_clipped_surrogate",
    right=losses.clipped_surrogate,
    praise="this is ppo_lab.ppo.losses.clipped_surrogate",
    cases=(
        ("with every ratio inside the leash", (torch.tensor([1.1, 0.9, 1.0, 1.1, 0.95, 1.05]), _ADVANTAGE, 0.2)),
        ("with ratios beyond the leash", (torch.tensor([1.5, 1.5, 0.5, 0.5, 1.4, 0.6]), _ADVANTAGE, 0.2)),
    ),
    mistakes=(
        (
            "the minus is missing: an optimizer makes a loss smaller, and this is what should grow",
            lambda r, a, eps: -losses.clipped_surrogate(r, a, eps),
        ),
        ("a sum instead of a mean", lambda r, a, eps: losses.clipped_surrogate(r, a, eps) * len(r)),
        ("the maximum of the two instead of the minimum", lambda r, a, e: -torch.max(r * a, _inside(r, e) * a).mean()),
        ("nothing is clipped", lambda r, a, eps: -(r * a).mean()),
        (
            "the clipped half alone: take the smaller of r * A and clip(r) * A",
            lambda r, a, e: -(_inside(r, e) * a).mean(),
        ),
        ("clip the ratio, not ratio times advantage", lambda r, a, eps: -torch.min(r * a, _inside(r * a, eps)).mean()),
        (
            "the leash is around 1, not around 0: clip to 1 - clip_coef and 1 + clip_coef",
            lambda r, a, eps: -torch.min(r * a, r.clamp(-eps, eps) * a).mean(),
        ),
    ),
    gradient=True,
)

NORMALIZED = Exercise(
    name="my_normalized",
    right=advantages.normalized,
    praise="mean 0, std 1, and no division by zero",
    cases=(
        ("for twelve advantages", (_numbers(12, seed=6, low=-1, high=4),)),
        ("where all advantages are equal", (torch.full((8,), 0.5),)),
    ),
    mistakes=(
        (
            "where all advantages are equal the std is 0: add something tiny to it before you divide",
            lambda a: (a - a.mean()) / a.std(correction=0),
        ),
        ("the mean is subtracted, the division by the std is missing", lambda a: a - a.mean()),
        ("the mean is not subtracted", lambda a: a / a.std(correction=0)),
        ("divided by the variance: take its square root, the std", lambda a: (a - a.mean()) / a.var(correction=0)),
        (
            "nearly: torch's std divides by n - 1. Ours divides by n: std(correction=0)",
            lambda a: (a - a.mean()) / a.std(),
        ),
    ),
)
