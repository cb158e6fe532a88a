"""The rules of comma.ai's controls challenge (v2): times, limits, cost, noise.

Arrays have time first: (T, N) for N cars. Row t is the time t / 10 s. All functions take NumPy arrays or tensors.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np

STEP_SECONDS = 0.1
CONTEXT = 20  # rows that the official network sees; controllers are called from this row on
CONTROL_START, COST_END = 100, 500  # the controller steers in rows [100, 500), and the cost covers these rows
EPISODE_STEPS = COST_END - CONTROL_START
PREVIEW = 50  # rows t..t+49: the current one, and the 49 that a controller knows in advance
ROWS = COST_END + PREVIEW  # of a route, so that the last controlled row has a full preview
STEER_LIMIT = 2.0
LATACCEL_LIMIT = 5.0  # m/s^2: range of the tokens
MAX_CHANGE = 0.5  # m/s^2 that the lateral acceleration can change in a step
LATERAL_WEIGHT = 50.0
GRAVITY = 9.81  # m/s^2

BINS = np.linspace(-LATACCEL_LIMIT, LATACCEL_LIMIT, 1024)  # m/s^2 of each token; float64, since float32 changes scores


class Cost(NamedTuple):
    """The cost of each drive, (N,) each; lower is better."""

    lateral: Any  # 100 mean (target - lataccel)^2 over 400 rows
    jerk: Any  # 100 mean (change of lataccel / 0.1 s)^2 over their 399 differences
    total: Any  # 50 lateral + jerk


def cost(target: Any, lataccel: Any) -> Cost:
    """Compute costs from accelerations (T, N) in m/s^2; only rows 100 to 499 count, not the jump into row 100."""
    driven = lataccel[CONTROL_START:COST_END]  # (400, N)
    lateral = ((target[CONTROL_START:COST_END] - driven) ** 2).mean(0) * 100
    jerk = (((driven[1:] - driven[:-1]) / STEP_SECONDS) ** 2).mean(0) * 100
    return Cost(lateral, jerk, LATERAL_WEIGHT * lateral + jerk)


def encode(lataccel: np.ndarray) -> np.ndarray:
    """Return the token of each lateral acceleration (m/s^2): the first bin not below it."""
    return np.searchsorted(BINS, np.clip(lataccel, -LATACCEL_LIMIT, LATACCEL_LIMIT), side="left")


def official_draws(key: str) -> np.ndarray:
    """Return the uniform numbers (400,) that the official simulator uses in rows 100 to 499 of the segment `key`.

    Its generator is seeded with the path as typed on the command line: `data/00000.csv` for the documented command. It
    draws one number per row from row 20 on; the first 80 are for rows whose result it discards.
    """
    seed = int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest(), 16) % 10_000
    return np.random.RandomState(seed).random_sample(COST_END - CONTEXT)[CONTROL_START - CONTEXT :]
