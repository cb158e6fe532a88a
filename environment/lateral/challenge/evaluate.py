"""Evaluate any controller and PID on the same segments and noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ppo_lab.errors import ConfigError, NonFiniteError
from ppo_lab.runs.run import look_up_run

from ...lateral_env import CHOICES
from ..controllers import Controller, PidController, ZeroController
from ..making import load_routes, make_plant
from ..plants import Plant
from ..routes import Routes
from ..rules import COST_END, Cost, cost
from ..simulate import Noise, noise_draws, simulate
from .policy_controller import load_controller
from .results import Drives, LateralEvaluation


def evaluate_lateral(
    controller: str | Path | Controller,
    plant: str = "surrogate",
    routes: str | Path = "synthetic",
    segments: int | Sequence[int] | None = 100,
    model: str | Path | None = None,
    noise: Noise = "official",
    seeds: int = 1,
    seed: int = 1,
    routes_seed: int = 1,
    at: int | str = "latest",
) -> LateralEvaluation:
    """Evaluate a controller and PID on the same segments with the same noise.

    Args:
        controller: A run by its folder or name, "pid", "zero", or a Controller.
        plant, model: "surrogate"; "onnx" or "torch" with the path of tinyphysics.onnx. Only "onnx" gives the numbers
            of the challenge bit for bit.
        routes: "synthetic", or the folder with the challenge's CSV files.
        segments: Number of segments from the first on, as in the challenge, or (start, stop); None: all files, 1000
            synthetic routes.
        noise: "official", determined by the name of each segment; "fresh"; "expected", no noise.
        seeds: Number of sets of fresh noise for each segment.
        seed: Of the first set; the others use seed + 1, seed + 2, ...
        routes_seed: Of synthetic routes. Training uses 0 by default, so the default 1 gives unseen routes.
        at: The checkpoint of a run: a step, "latest" or "best".

    Raises:
        ConfigError: An argument is outside its range.
        EnvError: Routes or a model cannot be read, or a package is missing.
        RunError: No such run or checkpoint, or a run on another environment.
        NonFiniteError: The controller returned NaN or infinity.
    """
    _check(plant, noise, seeds, seed, model, routes)
    name, driver = _named(controller, at)
    chosen = load_routes(routes, (0, segments) if isinstance(segments, int) else segments, routes_seed)
    draws = [noise_draws(chosen, noise, seed + k) for k in range(seeds)]
    car = make_plant(plant, chosen.num_routes, torch.device("cpu"), model, expected=noise == "expected")
    pid = _drives("pid", PidController(), car, chosen, draws)
    mine = pid if controller == "pid" else _drives(name, driver, car, chosen, draws)
    return LateralEvaluation(
        name, plant, noise, chosen.keys, tuple(range(seed, seed + seeds)), chosen.target[:COST_END], mine, pid
    )


def _named(controller: str | Path | Controller, at: int | str) -> tuple[str, Controller]:
    if controller == "pid":
        return "pid", PidController()
    if controller == "zero":
        return "zero", ZeroController()
    if isinstance(controller, str | Path):
        return look_up_run(controller).name, load_controller(controller, at)
    return type(controller).__name__, controller


def _drives(name: str, controller: Controller, plant: Plant, routes: Routes, draws: list[np.ndarray]) -> Drives:
    costs: list[Cost] = []
    paths: list[np.ndarray] = []
    for noise in draws:
        drive = simulate(controller, plant, routes, noise)
        costs.append(cost(drive.target, drive.lataccel))
        bad = np.flatnonzero(~np.isfinite(costs[-1].total))
        if bad.size:
            raise NonFiniteError(f"{name} steered by NaN or infinity on {routes.keys[bad[0]]}")
        paths = paths or [drive.lataccel[:COST_END].copy(), drive.actions[:COST_END].copy()]
    return Drives(Cost(*(np.stack(each, axis=1) for each in zip(*costs, strict=True))), *paths)


def _check(plant: str, noise: str, seeds: int, seed: int, model: str | Path | None, routes: str | Path) -> None:
    for name, value in (("plant", plant), ("noise", noise)):
        if value not in CHOICES[name]:
            raise ConfigError(f"{name}={value!r}; allowed are {', '.join(CHOICES[name])}")
    if seeds < 1 or seed < 0:
        raise ConfigError(f"seeds={seeds}, seed={seed}; they must be at least 1 and at least 0")
    if seeds > 1 and noise != "fresh":
        raise ConfigError(f"seeds={seeds}: {noise} noise is the same every time; seeds are for noise='fresh'")
    if model is not None and plant == "surrogate":
        raise ConfigError("model: the surrogate needs none; set plant='onnx' or plant='torch'")
    if str(routes) != "synthetic" and not Path(routes).is_dir():
        raise ConfigError(f"routes: no folder {routes}; give the one with the challenge's NNNNN.csv, or 'synthetic'")
