"""Checks of the exercises of 02_ppo_explained: compare the reader's function with the library's and name the mistake.

    from ppo_lab.notebook import check
    check.gae(my_gae)    "your result ignores `done`: the trace continues past the end of an episode"

A function that returns None is not started: the check prints "not yet". Exceptions of the reader's code are not caught.
Every known mistake is listed as a formula next to the right answer, and is recognised by the numbers that it gives.
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
    """Draw uniform random numbers in [low, high], (*shape), with one decimal, so that messages are easy to read."""
    drawn = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return ((low + (high - low) * drawn) * 10).round() / 10


# --- advantages -------------------------------------------------------------------------------------------------------


def _stretch(ended: tuple[int, int] | None, cut_off: tuple[int, int] | None) -> tuple[Any, ...]:
    """Make the arguments of my_gae: six steps of two environments. (t, n): the step that terminates or is truncated."""
    reward, value = _numbers(6, 2, seed=1, low=-1, high=2), _numbers(6, 2, seed=2, low=1, high=5)
    next_value = torch.cat([value[1:], _numbers(1, 2, seed=3, low=1, high=5)])  # (6, 2)
    terminated, done = torch.zeros(2, 6, 2, dtype=torch.bool)
    if ended is not None:
        terminated[ended] = done[ended] = True
        next_value[ended] = 7.0  # must not be used
    if cut_off is not None:
        done[cut_off] = True
        next_value[cut_off] = 6.0  # differs from value[t + 1], which belongs to another episode
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
        ("where an episode is truncated", _stretch((2, 0), (3, 1))),
    ),
    mistakes=(
        (
            "your result uses neither `terminated` nor `done`: it includes the next episode",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, _never(term), _never(done), g, lam),
        ),
        (
            "your result ignores `done`: the trace continues past the end of an episode",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, term, _never(done), g, lam),
        ),
        (
            "your result ignores `terminated`: after termination there is no next value",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, _never(term), done, g, lam),
        ),
        (
            "a truncation is treated as a termination: next_value still counts where an episode was only cut off",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, done, done, g, lam),
        ),
        (
            "the trace continues past a truncation: `done` ends it, not `terminated`",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, term, term, g, lam),
        ),
        (
            "`terminated` and `done` are swapped: `terminated` removes next_value, `done` ends the trace",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, done, term, g, lam),
        ),
        (
            "value[t + 1] is not next_value[t] where an episode was truncated: it belongs to another episode",
            lambda r, v, w, term, done, g, lam: _gae(r, v, _shifted(v, w), term, done, g, lam),
        ),
        (
            "gamma is missing in delta: r + gamma * next_value - value",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w / g, term, done, g, lam),
        ),
        (
            "gamma is missing in the trace: it decays by gamma * gae_lambda per step",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w * g, term, done, 1.0, lam),
        ),
        (
            "gae_lambda is missing in the trace: it decays by gamma * gae_lambda per step",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, term, done, g, 1.0),
        ),
        (
            "these are the deltas: add the later ones too, each discounted by gamma * gae_lambda per step",
            lambda r, v, w, term, done, g, lam: _gae(r, v, w, term, done, g, 0.0),
        ),
        (
            "the critic's value is not subtracted: delta is r + gamma * next_value - value",
            lambda r, v, w, term, done, g, lam: _gae(r, torch.zeros_like(v), w, term, done, g, lam),
        ),
        (
            "these are the returns: subtract the value to get the advantage",
            lambda r, v, *rest: _gae(r, v, *rest) + v,
        ),
        ("you walked forwards: later steps count for earlier ones, so start at the last row", _forwards),
    ),
)

# --- ratio and clipping -----------------------------------------------------------------------------------------------

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
        ("upside down: divide the new probability by the old one", lambda new, old: (old - new).exp()),
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
        ("with every ratio inside the clip range", (torch.tensor([1.1, 0.9, 1.0, 1.1, 0.95, 1.05]), _ADVANTAGE, 0.2)),
        ("with ratios outside the clip range", (torch.tensor([1.5, 1.5, 0.5, 0.5, 1.4, 0.6]), _ADVANTAGE, 0.2)),
    ),
    mistakes=(
        (
            "the minus is missing: an optimizer minimises a loss, and the objective should grow",
            lambda r, a, eps: -losses.clipped_surrogate(r, a, eps),
        ),
        ("a sum instead of a mean", lambda r, a, eps: losses.clipped_surrogate(r, a, eps) * len(r)),
        ("the maximum of the two instead of the minimum", lambda r, a, e: -torch.max(r * a, _inside(r, e) * a).mean()),
        ("nothing is clipped", lambda r, a, eps: -(r * a).mean()),
        (
            "only the clipped term is used: take the smaller of r * A and clip(r) * A",
            lambda r, a, e: -(_inside(r, e) * a).mean(),
        ),
        ("clip the ratio, not ratio times advantage", lambda r, a, eps: -torch.min(r * a, _inside(r * a, eps)).mean()),
        (
            "the clip range is around 1, not around 0: clip to 1 - clip_coef and 1 + clip_coef",
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
            "where all advantages are equal the std is 0: add a small number to it before you divide",
            lambda a: (a - a.mean()) / a.std(correction=0),
        ),
        ("the mean is subtracted, the division by the std is missing", lambda a: a - a.mean()),
        ("the mean is not subtracted", lambda a: a / a.std(correction=0)),
        ("divided by the variance: take its square root, the std", lambda a: (a - a.mean()) / a.var(correction=0)),
        (
            "almost right: std() divides by n - 1 by default. Divide by n: std(correction=0)",
            lambda a: (a - a.mean()) / a.std(),
        ),
    ),
)
