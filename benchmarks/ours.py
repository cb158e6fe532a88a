"""Measurements of ppo_lab. A child process of peers.py; see `measurement`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

from measurement import Clock, answer, peak_megabytes, threads
from settings import GOAL, WINDOW

from ppo_lab import Config, Trainer, override
from ppo_lab.models.networks import count_parameters


def speed(settings: dict[str, Any], records: bool, seed: int, warm_up: int, updates: int) -> dict[str, Any]:
    """Seconds for `updates` updates after `warm_up` others. records: write metrics.jsonl and TensorBoard's files."""
    with tempfile.TemporaryDirectory() as folder:
        config = override(Config(), settings | _run(seed, records, folder))
        rows = config.env.num_envs * config.ppo.num_steps
        trainer = Trainer(override(config, {"ppo.total_timesteps": (warm_up + updates) * rows}))
        clock = Clock()
        for update in trainer:
            if update.update == warm_up:
                clock = Clock()
        trainer.close()  # what still waits to be written is part of it
        numbers = clock.read()
        told = {
            "parameters": count_parameters(trainer.state.model),
            "return_mean": update.metrics.get("episode/return_mean"),
            "peak_megabytes": peak_megabytes(),
        }
        return {"steps": updates * rows, **told, **numbers}


def goal(config: dict[str, Any], records: bool, seed: int) -> dict[str, Any]:
    """Seconds and env steps until the last 100 episodes have a mean return of 475, or to the end of the budget."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(override(Config(), config | _run(seed, records, folder)))
        if records:
            import torch.utils.tensorboard  # noqa: F401  # the trainer imports it with the first number it writes
        clock = Clock()
        reached = False
        for update in trainer:
            if _has_reached(update.metrics, GOAL):
                reached = True
                break
        numbers = clock.read()
        told = {"return_mean": update.metrics.get("episode/return_mean"), "peak_megabytes": peak_megabytes()}
        trainer.close()
        return {"reached": reached, "steps": update.global_step, **told, **numbers}


def _run(seed: int, records: bool, folder: str) -> dict[str, Any]:
    return {"run.seed": seed, "run.root": folder if records else None, "run.device": "cpu", "run.threads": threads()}


def _has_reached(metrics: Mapping[str, float], threshold: float) -> bool:
    return metrics.get("episode/count", 0.0) >= WINDOW and metrics["episode/return_mean"] >= threshold


if __name__ == "__main__":
    answer({"speed": speed, "goal": goal})
