"""Statistics of scores the slow way: sorting, double loops, and every bootstrap resample there is."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np


def interquartile_mean(scores: list[float]) -> float:
    """Throw away the lowest and the highest quarter (whole scores, rounded down), average the rest."""
    left = sorted(scores)
    for _ in range(len(scores) // 4):
        left.pop(0)
        left.pop()
    return sum(left) / len(left)


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> float:
    """Share of pairs that X wins, a tie being half a win; x (runs_x, tasks), y (runs_y, tasks), mean over tasks."""
    shares = []
    for task in range(x.shape[1]):
        wins = 0.0
        for one in x[:, task]:
            for other in y[:, task]:
                wins += 1.0 if one > other else 0.5 if one == other else 0.0
        shares.append(wins / (len(x) * len(y)))
    return sum(shares) / len(shares)


def every_resample(scores: np.ndarray, statistic: Callable[[list[float]], float]) -> np.ndarray:
    """The statistic of all equally likely stratified resamples of scores (runs, tasks): (runs ** (runs * tasks),)."""
    runs, tasks = scores.shape
    picks = list(itertools.product(range(runs), repeat=runs))
    values = []
    for choice in itertools.product(picks, repeat=tasks):
        pooled = [float(scores[run, task]) for task, pick in enumerate(choice) for run in pick]
        values.append(statistic(pooled))
    return np.array(values)


def mean(scores: list[float]) -> float:
    return sum(scores) / len(scores)
