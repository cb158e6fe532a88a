"""One measurement of training on a GPU. A child process of gpu.py; see `measurement`."""

from __future__ import annotations

from typing import Any

import torch
from measurement import Clock, answer

from ppo_lab import Config, Trainer, override
from ppo_lab.engine.acting import GraphActing
from ppo_lab.engine.learning import GraphWay


def training(config: dict[str, Any], seed: int, num_envs: int, warm_up: int, updates: int, dry: bool) -> dict[str, Any]:
    """Seconds for `updates` updates after `warm_up` others, of which the first captures. dry: on the CPU."""
    settings = override(override(Config(), config["base"]), config["changes"])
    rows = num_envs * settings.ppo.num_steps
    run = {"run.seed": seed, "run.root": None, "run.device": "cpu" if dry else "cuda", "env.num_envs": num_envs}
    trainer = Trainer(override(settings, {**run, "ppo.total_timesteps": rows * (warm_up + updates)}))
    clock, first = Clock(), 0.0
    for update in trainer:
        if update.update in (1, warm_up):
            _wait(dry)
            first = clock.read()["seconds"] if update.update == 1 else first
            clock = clock if update.update < warm_up else Clock()
    _wait(dry)
    numbers = clock.read()
    return {
        "gpu": None if dry else torch.cuda.get_device_name(),
        "steps": rows * updates,
        "first_update_seconds": first,
        "peak_bytes": None if dry else torch.cuda.max_memory_allocated(),
        "captured": [
            part
            for part, way in (("rollout", trainer.engine.acting), ("minibatch", trainer.engine.learning))
            if isinstance(way, GraphActing | GraphWay)
        ],
        **numbers,
    }


def _wait(dry: bool) -> None:
    """Until the device has done what it was asked for."""
    if not dry:
        torch.cuda.synchronize()


if __name__ == "__main__":
    answer({"training": training})
