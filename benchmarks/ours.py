"""Measurements of ppo_lab. A child process of versus_sb3.py and learning.py; see `measurement`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from measurement import Clock, answer
from settings import GOAL, ROWS, SPEED_OURS, WINDOW

from ppo_lab import Config, Trainer, evaluate, override


def speed(env: str, records: bool, seed: int, warm_up: int, updates: int) -> dict[str, Any]:
    """Seconds for `updates` updates after `warm_up` others. records: write metrics.jsonl and TensorBoard's files."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"env.id": env, "ppo.total_timesteps": (warm_up + updates) * ROWS, **_run(seed, records, folder)}
        trainer = Trainer(override(Config(), SPEED_OURS | settings))
        clock = Clock()
        for update in trainer:
            if update.update == warm_up:
                clock = Clock()
        trainer.close()  # what still waits to be written is part of it
        return {"steps": updates * ROWS, **clock.read()}


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
        mean = update.metrics.get("episode/return_mean")
        trainer.close()
        return {"reached": reached, "steps": update.global_step, "return_mean": mean, **numbers}


def learn(config: dict[str, Any], seed: int, threshold: float, judged_on: str, episodes: int) -> dict[str, Any]:
    """Train to the end of its budget, then play `episodes` fresh episodes with the most likely actions.

    reached_at: env steps after which the last 100 episodes of training had a mean return of `threshold`; or null.
    """
    trainer = Trainer(override(Config(), config | _run(seed, False, "")))
    clock = Clock()
    reached_at = None
    for update in trainer:
        if reached_at is None and _has_reached(update.metrics, threshold):
            reached_at = update.global_step
    numbers = clock.read()
    trainer.close()
    returns = evaluate(trainer.policy(), judged_on, episodes, seed=10_000 + seed).returns
    judged = {"evaluation_mean": float(np.mean(returns)), "evaluation_min": float(np.min(returns))}
    last = update.metrics["episode/return_mean"]
    return {"seed": seed, "steps": update.global_step, "reached_at": reached_at, "last": last, **judged, **numbers}


def _run(seed: int, records: bool, folder: str) -> dict[str, Any]:
    return {"run.seed": seed, "run.root": folder if records else None, "run.device": "cpu", "run.threads": 1}


def _has_reached(metrics: Mapping[str, float], threshold: float) -> bool:
    return metrics.get("episode/count", 0.0) >= WINDOW and metrics["episode/return_mean"] >= threshold


if __name__ == "__main__":
    answer({"speed": speed, "goal": goal, "learn": learn})
