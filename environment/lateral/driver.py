"""Observations and steering commands: the code that the environment and an exported controller share.

Every function works on NumPy arrays and on tensors: `xp` is the module, `numpy` or `torch`. The exported controller
contains the source of this file, so it imports nothing but NumPy.

Time comes first: `target, roll, v, a` are rows t to t+49, (50, N); `lataccel` and `actions` rows t-20 to t-1, (20, N).
The steering of rows before 100 is hidden from an official controller, so `actions` has `feedforward` of those rows.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

AHEAD = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 27, 33, 40, 49)  # rows of the preview in `compact`
CHANGES = (1, 2, 3, 4, 5, 7, 10, 15)
SIZES = {"compact": 41, "full256": 256}
GAIN_KNOTS = ((0.0, 1.70), (5.0, 1.75), (12.0, 1.75), (18.0, 1.62), (25.0, 1.62), (30.0, 1.85), (36.0, 1.95))
STEER_LIMIT = 2.0
STEER_PER_ACTION = 0.2  # "delta"
PID = (0.195, 0.100, -0.053)  # from the challenge's controllers/pid.py


def gain(v: Any) -> Any:
    """Return the lateral acceleration (m/s^2) per unit of steering at speed v (m/s), piecewise linear between knots."""
    total = GAIN_KNOTS[0][1] + 0.0 * v
    for (low, before), (high, after) in pairwise(GAIN_KNOTS):
        if after != before:
            total = total + (v - low).clip(0.0, high - low) * ((after - before) / (high - low))
    return total


def feedforward(target: Any, roll: Any, v: Any) -> Any:
    """Return the steering that holds `target` in steady state: (target - roll) / gain, within the limits."""
    return ((target - roll) / gain(v)).clip(-STEER_LIMIT, STEER_LIMIT)


def integrate(integral: Any, error: Any) -> Any:
    """Update the leaky integral of the error, with a time constant of 2 s."""
    return 0.95 * integral + 0.2 * error


def compact(xp: Any, target: Any, roll: Any, v: Any, a: Any, lataccel: Any, actions: Any, integral: Any) -> Any:
    """Return 41 features, (41, N), scaled by hand to about 1, clipped to +-5.

    The road ahead and the current response are in units of steering, relative to the last action, so that a linear
    function of the features is a good first guess. integral: (N,) of the errors before this row.
    """
    response, before = gain(v[0]), actions[-1]  # (N,)
    error = target[0] - lataccel[-1]
    demand = (target[list(AHEAD)] - roll[list(AHEAD)]) / response  # (18, N)
    now = xp.stack([error * 4, integrate(integral, error), lataccel[-1] / 2, v[0] / 20 - 1, a[0], roll[0]])
    held = ((lataccel[-1] - roll[0]) / response - before) * 3
    return xp.concatenate(
        [
            now,
            (demand - before) * 3,
            xp.stack([held, before]),
            (actions[-3:] - actions[-4:-1]) * 20,
            (lataccel[-4:] - lataccel[-5:-1]) * 8,
            (target[list(CHANGES)] - target[0]) * 4,
        ]
    ).clip(-5.0, 5.0)


def full256(xp: Any, target: Any, roll: Any, v: Any, a: Any, lataccel: Any, actions: Any, integral: Any) -> Any:
    """Return 256 features, (256, N): 16 current ones, 20 actions, 20 lateral accelerations, 4 x 50 preview rows.

    Nearly all that a controller gets, without selection: for comparison with `compact`.
    """
    error, square = target[0] - lataccel[-1], (v[0] * v[0]).clip(25.0, 1e9)
    used = (lataccel[-1] ** 2 + a[0] ** 2) ** 0.5  # m/s^2, total horizontal acceleration: friction in use
    now = [target[0], lataccel[-1], error * 4, (target[0] - roll[0]) / square * 100, v[0] / 20 - 1, a[0], roll[0]]
    now += [(lataccel[-1] - roll[0]) / square * 100, actions[-1], integrate(integral, error), used / 5]
    now += [lataccel[-1] - lataccel[-2], target[0] - target[1], actions[-1] - actions[-2]]
    now += [(target[0] - roll[0]) / gain(v[0]) - actions[-1], (lataccel[-1] - roll[0]) / gain(v[0]) - actions[-1]]
    return xp.concatenate(
        [xp.stack(now), actions, lataccel / 2, target / 2, roll, v / 20 - 1, a],
    ).clip(-5.0, 5.0)


def steer(mode: str, x: Any, before: Any, pid: Any) -> Any:
    """Convert the policy's action x (N,), within +-1, to a steering command (N,). before: (N,) the last command.

    mode: "delta": the last command + 0.2 x; "absolute": 2 x; "pid_residual": PID's command (pid) + x.
    """
    x = x.clip(-1.0, 1.0)
    if mode == "delta":
        x = before + STEER_PER_ACTION * x
    elif mode == "absolute":
        x = x * STEER_LIMIT
    else:
        x = pid + x
    return x.clip(-STEER_LIMIT, STEER_LIMIT)
