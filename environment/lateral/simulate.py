"""Drive all routes at once with a controller, in the official simulator's order of operations."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from .controllers import Controller
from .plants import Drive, Plant
from .routes import Routes
from .rules import (
    CONTEXT,
    CONTROL_START,
    COST_END,
    EPISODE_STEPS,
    MAX_CHANGE,
    PREVIEW,
    STEER_LIMIT,
    official_draws,
)

Noise = Literal["fresh", "official", "expected"]


def simulate(controller: Controller, plant: Plant, routes: Routes, draws: np.ndarray, seed: int = 0) -> Drive:
    """Simulate whole drives: fills rows up to 499 of `actions` and `lataccel`.

    draws: (400, N), from `noise_draws`. seed: for what the plant draws in `begin`; the official plants draw nothing.
    """
    drive = Drive(routes.num_routes, torch.device("cpu"))
    drive.start(routes)
    drive.draws[:] = draws
    plant.begin(drive, torch.Generator().manual_seed(seed))
    controller.reset(routes.num_routes)
    for t in range(CONTEXT, COST_END):
        ahead = slice(t, t + PREVIEW)
        road = (drive.target[ahead], drive.roll[ahead], drive.v[ahead], drive.a[ahead])
        command = controller.update(*road, drive.lataccel[t - 1])
        if t >= CONTROL_START:
            advance(drive, plant, t, command)
    return drive


def advance(drive: Drive, plant: Plant, t: int, command: Any) -> None:
    """Simulate row t: clip `command` (N,) to +-2, apply it, and limit the change of lataccel to 0.5 m/s^2."""
    drive.actions[t] = command.clip(-STEER_LIMIT, STEER_LIMIT)
    before = drive.lataccel[t - 1]
    drive.lataccel[t] = drive.xp.clip(plant.next_lataccel(drive, t), before - MAX_CHANGE, before + MAX_CHANGE)


def noise_draws(routes: Routes, noise: Noise, seed: int = 0) -> np.ndarray:
    """Return (400, N) the noise of rows 100 to 499: uniform in [0, 1); for "expected" 0.5, which means no noise.

    seed: of "fresh" noise; the noise of a route does not depend on the number of routes after it.
    """
    if noise == "official":
        return np.stack([official_draws(key) for key in routes.keys], axis=1)
    if noise == "fresh":
        return np.random.default_rng(seed).random((routes.num_routes, EPISODE_STEPS)).T
    return np.full((EPISODE_STEPS, routes.num_routes), 0.5)
