"""Checks of the exercises of 09_lateral_control; they work like those of `check`.

from ppo_lab.notebook import check_control
check_control.pid(my_pid)    "the derivative's sign is reversed: a growing error is a positive change"
"""

from __future__ import annotations

import torch
from torch import Tensor

from ppo_lab.notebook.course.exercise import Exercise, Solution


def cost(solution: Solution) -> None:
    """Check my_cost(target, lataccel) -> total cost (N,); both (T, N) in m/s^2, rows 0.1 s apart."""
    print(COST.diagnose(solution))


def pid(solution: Solution) -> None:
    """Check my_pid(error, p, i, d) -> commands (T, N); error (T, N), the gains are numbers."""
    print(PID.diagnose(solution))


def _numbers(*shape: int, seed: int) -> Tensor:
    """Draw uniform random numbers in [-2, 2], (*shape), with one decimal, so that messages are easy to read."""
    drawn = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return ((4 * drawn - 2) * 10).round() / 10


# --- cost -------------------------------------------------------------------------------------------------------------


def _lateral(target: Tensor, lataccel: Tensor) -> Tensor:
    return 100 * ((target - lataccel) ** 2).mean(0)


def _jerk(lataccel: Tensor, seconds: float = 0.1) -> Tensor:
    return 100 * ((lataccel.diff(dim=0) / seconds) ** 2).mean(0)


_ROAD = _numbers(6, 2, seed=12)
_STEADY = torch.full((6, 2), 0.5)
COST = Exercise(
    name="my_cost",
    right=lambda road, car: 50 * _lateral(road, car) + _jerk(car),
    praise="this is the cost of the challenge, except that the challenge counts only some of the rows",
    cases=(
        ("for a car that holds one value", (_ROAD, _STEADY)),
        ("for a car that jerks along the road", (_ROAD, _ROAD.clone())),
        ("for a car that moves at random", (_ROAD, _numbers(6, 2, seed=13))),
    ),
    mistakes=(
        ("the lateral cost has a weight of 50", lambda road, car: _lateral(road, car) + _jerk(car)),
        ("the jerk cost is missing", lambda road, car: 50 * _lateral(road, car)),
        ("a row is 0.1 s: the jerk is the change divided by 0.1 s", lambda r, x: 50 * _lateral(r, x) + _jerk(x, 1.0)),
        ("the factor 100 is missing in both costs", lambda road, car: (50 * _lateral(road, car) + _jerk(car)) / 100),
        (
            "the weight of 50 belongs to the lateral cost only, not to the jerk",
            lambda road, car: 50 * (_lateral(road, car) + _jerk(car)),
        ),
        (
            "this is one number for all cars: take the mean over time, dimension 0",
            lambda road, car: (50 * _lateral(road, car) + _jerk(car)).mean().expand(road.shape[1]),
        ),
        (
            "jerk is the change of the car's lateral acceleration, not of the error",
            lambda road, car: 50 * _lateral(road, car) + _jerk(road - car),
        ),
        (
            "divide the sum of the T - 1 changes by T - 1, not by T",
            lambda r, x: 50 * _lateral(r, x) + _jerk(x) * (len(x) - 1) / len(x),
        ),
    ),
)


# --- PID --------------------------------------------------------------------------------------------------------------


def _changes(error: Tensor) -> Tensor:
    """Return e[t] - e[t-1], (T, N), with an error of 0 before the first row."""
    return error.diff(dim=0, prepend=torch.zeros_like(error[:1]))


def _pid(e: Tensor, p: float, i: float, d: float) -> Tensor:
    return p * e + i * e.cumsum(0) + d * _changes(e)


def _later(rows: Tensor) -> Tensor:
    """Shift (T, N) one row later; the first row becomes 0."""
    return torch.cat([torch.zeros_like(rows[:1]), rows[:-1]])


_ERROR = _numbers(6, 2, seed=14)
PID = Exercise(
    name="my_pid",
    right=_pid,
    praise="this is the challenge's PID",
    cases=(
        ("with p alone", (_ERROR, 0.5, 0.0, 0.0)),
        ("with p and i", (_ERROR, 0.5, 0.2, 0.0)),
        ("with all three", (_ERROR, 0.5, 0.2, -0.3)),
    ),
    mistakes=(
        ("the integral is missing", lambda e, p, i, d: p * e + d * _changes(e)),
        ("the derivative is missing", lambda e, p, i, d: p * e + i * e.cumsum(0)),
        ("the integral has to include the current error", lambda e, p, i, d: _pid(e, p, i, d) - i * e),
        (
            "this is the mean of the errors so far: the integral is their sum",
            lambda e, p, i, d: p * e + i * e.cumsum(0) / torch.arange(1, len(e) + 1)[:, None] + d * _changes(e),
        ),
        (
            "the derivative's sign is reversed: a growing error is a positive change",
            lambda e, p, i, d: p * e + i * e.cumsum(0) - d * _changes(e),
        ),
        (
            "in the first row the previous error is 0, so the change is the error itself",
            lambda e, p, i, d: _pid(e, p, i, d) - d * torch.cat([e[:1], torch.zeros_like(e[1:])]),
        ),
        ("one row too late: the command of a row has to use the error of that row", lambda *a: _later(_pid(*a))),
    ),
)
