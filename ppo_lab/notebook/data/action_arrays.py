"""A policy's action distribution as arrays, from which pictures of actions are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class ActionPart(NamedTuple):
    """The action distribution for one key of an action: k components, in the environment's units.

    Discrete components have `probabilities`, `first` and `sizes`; continuous ones `mean`, `std`, `low` and `high`; the
    bounds may be infinite. *batch is empty for one observation, and T for a trajectory.
    """

    taken: np.ndarray  # (*batch, k)
    probabilities: np.ndarray | None = None  # (*batch, k, n); 0 for choices that a component does not have
    first: Sequence[int] = ()  # (k) the value of each component's first choice
    sizes: Sequence[int] = ()  # (k) the number of choices of each
    mean: np.ndarray | None = None  # (*batch, k)
    std: np.ndarray | None = None  # (*batch, k)
    low: np.ndarray | None = None  # (k,)
    high: np.ndarray | None = None  # (k,)
    key: str = ""  # of a Dict; "" where the action is one space

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> ActionPart:
        """Apply `function` to every array that has the batch dimensions."""
        chances, mean, std = (
            None if rows is None else function(rows) for rows in (self.probabilities, self.mean, self.std)
        )
        return self._replace(taken=function(self.taken), probabilities=chances, mean=mean, std=std)


class Number(NamedTuple):
    """One component of an action: it has either `probabilities`, or `mean`, `std`, `low` and `high`."""

    name: str
    taken: np.ndarray  # (*batch)
    probabilities: np.ndarray | None = None  # (*batch, n)
    first: int = 0  # the value of the first choice
    mean: np.ndarray | None = None  # (*batch)
    std: np.ndarray | None = None  # (*batch)
    low: float = -np.inf
    high: float = np.inf


def count(parts: Sequence[ActionPart]) -> int:
    """Return the number of components of an action."""
    return sum(part.taken.shape[-1] for part in parts)


def numbers_of(parts: Sequence[ActionPart], most: int) -> list[Number]:
    """Return at most `most` components of an action, in its order; if it has more, about equally many of each key."""
    places = [(i, j) for i, part in enumerate(parts) for j in range(part.taken.shape[-1])]
    chosen = sorted(sorted(places, key=lambda place: place[1])[:most])  # the first of every key, the second, ...
    return [_number(parts[i], j) for i, j in chosen]


def _number(part: ActionPart, j: int) -> Number:
    name = part.key or "action"
    name = name if part.taken.shape[-1] == 1 else f"{name} {j}"
    if part.probabilities is not None:
        return Number(name, part.taken[..., j], part.probabilities[..., j, : part.sizes[j]], int(part.first[j]))
    assert part.mean is not None
    assert part.std is not None
    assert part.low is not None
    assert part.high is not None
    ends = float(part.low[j]), float(part.high[j])
    return Number(name, part.taken[..., j], None, 0, part.mean[..., j], part.std[..., j], *ends)
