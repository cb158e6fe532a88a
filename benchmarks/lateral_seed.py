"""Lateral control, one measurement at a time. Child processes of lateral.py; see `measurement`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurement import Clock, answer
from scipy.stats import spearmanr
from settings import preset_settings

from environment.lateral.challenge import evaluate_lateral
from environment.lateral.controllers import PidController, ZeroController
from environment.lateral.making import load_routes, make_plant
from environment.lateral.rules import EPISODE_STEPS, cost
from environment.lateral.simulate import noise_draws, simulate
from environment.lateral_env import VectorizedLateralControlEnv
from ppo_lab import Config, Trainer, override

CARS = 1000
HELD_OUT = (100, 200)
FINE_TUNED_ON = (0, 100)
FINE_TUNING = {"ppo.learning_rate": 3e-4, "ppo.total_timesteps": 3_000_000}  # 2M steps more
CPU = torch.device("cpu")


def surrogate() -> dict[str, Any]:
    """PID and no steering on synthetic routes, and how fast one core is."""
    routes = load_routes("synthetic", (0, CARS))
    draws, plant = noise_draws(routes, "official"), make_plant("surrogate", CARS, CPU)
    found: dict[str, Any] = {}
    for name, controller in (("pid", PidController()), ("zero", ZeroController())):
        totals = cost(routes.target, simulate(controller, plant, routes, draws).lataccel).total
        found[name] = {"mean": float(totals.mean()), "median": float(np.median(totals))}
    began = time.process_time()
    for _ in range(5):
        simulate(PidController(), plant, routes, draws)
    found["pid_steps_per_cpu_second"] = 5 * CARS * EPISODE_STEPS / (time.process_time() - began)
    envs, action = VectorizedLateralControlEnv(CARS), torch.zeros(CARS, 1)
    envs.reset(1)
    began = time.process_time()
    for _ in range(2 * EPISODE_STEPS):
        envs.step(action)
    found["env_steps_per_cpu_second"] = 2 * CARS * EPISODE_STEPS / (time.process_time() - began)
    return found


def official(data: str, model: str) -> dict[str, Any]:
    """PID on the first 200 segments: the published score, the torch plant beside it, the surrogate's ranking."""
    routes = load_routes(data, (0, 200))
    draws, drives = noise_draws(routes, "official"), {}
    for name in ("onnx", "torch", "surrogate"):
        drives[name] = simulate(PidController(), make_plant(name, 200, CPU, model), routes, draws)
    totals = {name: cost(routes.target, drive.lataccel).total for name, drive in drives.items()}
    equal = (drives["onnx"].lataccel[:500] == drives["torch"].lataccel[:500]).all(0)
    return {
        "pid_0_99": float(totals["onnx"][:100].mean()),
        "pid_100_199": float(totals["onnx"][100:].mean()),
        "torch_bit_equal_of_100": int(equal[:100].sum()),
        "surrogate_rank_correlation": float(spearmanr(totals["onnx"], totals["surrogate"]).statistic),
    }


def train(seed: int, runs: str, data: str | None, model: str | None) -> dict[str, Any]:
    """The preset on the surrogate, judged there and, where data and model are given, on the official plant."""
    settings = {"run.root": runs, "run.name": f"lateral-{seed}", "run.seed": seed, "run.device": "cpu"}
    config = override(Config(), preset_settings("lateral") | settings | {"run.threads": 1, "run.tensorboard": False})
    trainer = Trainer(config)
    return {"seed": seed, **_to_the_end(trainer), **judged(trainer, data, model)}


def fine_tune(seed: int, runs: str, data: str, model: str) -> dict[str, Any]:
    """A fork of the trained run with the official plant, on the first 100 segments."""
    plant = {"plant": "onnx", "model": model, "routes": data, "segments": list(FINE_TUNED_ON)}
    settings = {"run.name": f"lateral-{seed}-official", "env.kwargs": plant, **FINE_TUNING}
    trainer = Trainer.fork(Path(runs) / f"lateral-{seed}", overrides=settings)
    return {"seed": seed, **_to_the_end(trainer), **judged(trainer, data, model)}


def _to_the_end(trainer: Trainer) -> dict[str, Any]:
    clock = Clock()
    for _ in trainer:
        pass
    trainer.close()
    return {"steps": trainer.state.global_step, **clock.read()}


def judged(trainer: Trainer, data: str | None, model: str | None) -> dict[str, Any]:
    """Mean costs of a run: on 1000 synthetic routes it has not seen, and on the held-out official segments."""
    assert trainer.run is not None
    folder = trainer.run.folder
    on_surrogate = evaluate_lateral(folder, segments=CARS)
    found = {"surrogate_cost": on_surrogate.controller.mean().total}
    if data is not None:
        on_official = evaluate_lateral(folder, "onnx", data, HELD_OUT, model)
        mean, median = on_official.controller.mean(), on_official.controller.median()
        found |= {"official_cost": mean.total, "lateral": mean.lateral, "jerk": mean.jerk, "median": median.total}
    return found


if __name__ == "__main__":
    answer({"surrogate": surrogate, "official": official, "train": train, "fine_tune": fine_tune})
