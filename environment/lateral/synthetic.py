"""Generate routes that are statistically like the challenge's and need no download.

Three kinds of road, drawn for each route: urban (22 %), arterial (33 %), highway (45 %). Speed is a drawn mean plus the
integral of an acceleration that varies around 0. Curves are a Poisson process, about one in 6 s; each is a trapezoid
with smooth ramps, as a clothoid enters and leaves an arc. Its height is drawn as a lateral acceleration at the mean
speed, converted to a curvature, and the target follows from the actual speed. The slope of the road is a constant, a
slow random process and the banking of curves. The steering of the first 100 rows is the inverse of the car's static
response.
"""

from __future__ import annotations

import numpy as np

from .driver import feedforward
from .routes import Routes
from .rules import CONTROL_START, ROWS, STEP_SECONDS

SHARES = (0.22, 0.33, 0.45)  # urban, arterial, highway
SPEED = ((9.0, 19.5, 31.0), (3.0, 3.0, 2.5))  # m/s: mean, standard deviation
ACCELERATION = (0.75, 0.45, 0.22)  # m/s^2, standard deviation
CURVES_EVERY = 6.0  # s
LENGTH = (2.5, 11.0)  # s, range for a curve
RAMP = (0.9, 4.0)  # s, range for the ramps in and out
PEAK, PEAK_SPREAD, PEAK_LIMIT = 0.24, 0.5, 4.0  # m/s^2: median scale of a route, its log-deviation, the maximum


def synthetic_routes(num_routes: int, seed: int = 0) -> Routes:
    """Generate N routes; equal arguments give equal routes, and the first ones do not depend on N.

    Made in blocks of 100, each with its own random stream. Keys are `synthetic-<seed>/<number>`.
    """
    blocks = [_block(np.random.default_rng([seed, i])) for i in range(-(-num_routes // BLOCK))]
    arrays = (np.concatenate(rows, axis=1)[:, :num_routes] for rows in zip(*blocks, strict=True))
    return Routes(tuple(f"synthetic-{seed}/{i:05d}" for i in range(num_routes)), *arrays)


BLOCK = 100


def _block(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Generate target, roll, v, a, steer, (T, 100) each."""
    kind = rng.choice(3, p=SHARES, size=BLOCK)
    mean = np.maximum(rng.normal(np.array(SPEED[0])[kind], np.array(SPEED[1])[kind]), 2.0)
    wish = np.array(ACCELERATION)[kind] * _wander(rng, 2.5)  # (T, N)
    # the driver returns to the mean speed within some 8 s: v' = wish - (v - mean) / 8
    lag = 1 - STEP_SECONDS / 8
    v = np.maximum(mean + _recursion(lag, STEP_SECONDS * wish), 0.0)
    a = np.gradient(v, STEP_SECONDS, axis=0)

    demand = _curves(rng) / np.maximum(mean, 5.0) ** 2 * v**2
    demand = np.clip(demand, -PEAK_LIMIT, PEAK_LIMIT)
    target = demand + 0.045 * _wander(rng, 1.5) + 0.013 * _wander(rng, 0.15)
    roll = 0.18 * demand + rng.normal(0, 0.25, BLOCK) + 0.13 * _wander(rng, 8.0)
    steer = np.where(np.arange(ROWS)[:, None] < CONTROL_START, feedforward(target, roll, v), 0.0)
    return target, roll, v, a, steer


def _wander(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Draw (T, N) stationary Ornstein-Uhlenbeck processes of variance 1 and this time constant."""
    keep = np.exp(-STEP_SECONDS / seconds)
    steps = rng.normal(size=(ROWS, BLOCK)) * np.sqrt(1 - keep**2)
    steps[0] /= np.sqrt(1 - keep**2)
    return _recursion(keep, steps)


def _recursion(keep: float, steps: np.ndarray) -> np.ndarray:
    """Compute x[t] = keep x[t-1] + steps[t], (T, N)."""
    from scipy.signal import lfilter  # imported here because it takes a third of a second

    filtered: np.ndarray = lfilter([1.0], [1.0, -keep], steps, axis=0)
    return filtered


def _curves(rng: np.random.Generator) -> np.ndarray:
    """Draw (T, N) the lateral acceleration of the curves at mean speed, m/s^2."""
    scale = PEAK * np.exp(PEAK_SPREAD * rng.normal(size=BLOCK))
    seconds = np.arange(ROWS)[:, None] * STEP_SECONDS
    total = np.zeros((ROWS, BLOCK))
    end = np.full(BLOCK, -LENGTH[1])
    while (end < seconds[-1]).any():  # (N,) s, the start of the last curve of each route
        end = end + rng.exponential(CURVES_EVERY, BLOCK)
        length, ramp = rng.uniform(*LENGTH, BLOCK), rng.uniform(*RAMP, BLOCK)
        ramp = np.minimum(ramp, length / 2)
        height = np.clip(rng.laplace(0, scale), -PEAK_LIMIT, PEAK_LIMIT)
        inside = np.minimum(seconds - end, end + length - seconds) / ramp  # a trapezoid: 1 between the ramps
        inside = np.clip(inside, 0, 1)
        total += height * inside * inside * (3 - 2 * inside)
    return total
