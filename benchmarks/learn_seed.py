"""One seed of a preset, trained and judged. A child process of learning.py; see `measurement`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from measurement import Clock, answer
from settings import WINDOW

from ppo_lab import Config, Trainer, evaluate, override
from ppo_lab.errors import RunError
from ppo_lab.runs.run import Run, find_checkpoint


class Course:
    """How a seed came along, a line an update: its seconds, and when it reached a return, outlive an interruption.

    Lines hold env steps, seconds so far, and the mean return of the last 100 episodes (null before there are so many).
    """

    def __init__(self, path: Path | None, global_step: int) -> None:
        """path: a file to keep it in; what stands there past `global_step` is forgotten, as it will happen again."""
        kept = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
        self.lines: list[dict[str, Any]] = [line for line in map(_parsed, kept) if line and line["step"] <= global_step]
        before = self.lines[-1] if self.lines else {}
        self._before = {name: before.get(name, 0.0) for name in ("seconds", "cpu_seconds")}
        self._file = path.open("w", encoding="utf-8", buffering=1) if path is not None else None  # line by line
        for line in self.lines:
            self._write(line)

    def add(self, step: int, metrics: Mapping[str, float], clock: Mapping[str, float]) -> None:
        """One more update; clock: seconds of this sitting."""
        full = metrics.get("episode/count", 0.0) >= WINDOW
        spent = {name: round(seconds + clock[name], 4) for name, seconds in self._before.items()}
        last = metrics.get("episode/return_mean")
        self.lines.append({"step": step, **spent, "last": last, "full": full})
        self._write(self.lines[-1])

    def result(self, threshold: float | None) -> dict[str, Any]:
        """Steps and seconds in all, the last mean return, and the steps to a mean return of `threshold`, or null."""
        reached = (line["step"] for line in self.lines if line["full"] and line["last"] >= threshold)
        last = dict(self.lines[-1])
        last.pop("full")
        return {"steps": last.pop("step"), "reached_at": None if threshold is None else next(reached, None), **last}

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def learn(
    config: dict[str, Any],
    seed: int,
    threshold: float | None,
    judged_on: str | None,
    episodes: int,
    deterministic: bool,
    folder: str | None = None,
) -> dict[str, Any]:
    """Train to the end of its budget, then play `episodes` fresh episodes.

    judged_on: id of the environment to play in; None: as trained in, but whole games (no `life_loss`).
    folder: the seed's run folder; one that is there already is gone on with from its newest checkpoint.
    """
    trainer = begin(config, seed, Path(folder) if folder is not None else None)
    course = Course(Path(folder) / "course.jsonl" if folder is not None else None, trainer.state.global_step)
    clock = Clock()
    try:
        for update in trainer:
            course.add(update.global_step, update.metrics, clock.read())
    finally:
        trainer.close()
        course.close()
    env = judged_on if judged_on is not None else trainer.config
    returns = evaluate(trainer.policy(), env, episodes, seed=10_000 + seed, deterministic=deterministic).returns
    judged = {"evaluation_mean": float(np.mean(returns)), "evaluation_min": float(np.min(returns))}
    return {"seed": seed, **course.result(threshold), **judged}


def begin(config: dict[str, Any], seed: int, folder: Path | None) -> Trainer:
    """The trainer of a seed: resumed where its folder has a checkpoint, else new. Raises RunError for one in use."""
    run: dict[str, Any] = {"run.seed": seed, "run.device": "cpu", "run.threads": 1, "run.root": None}
    if folder is not None:
        if (folder / "config.yaml").exists():
            Run.open(folder).close()  # nobody else is at it
            try:
                find_checkpoint(folder)
            except RunError:
                pass  # it was interrupted before there was one
            else:
                return Trainer.resume(folder)
        shutil.rmtree(folder, ignore_errors=True)
        run |= {"run.root": str(folder.parent), "run.name": folder.name, "run.tensorboard": False, "run.keep_last": 1}
    return Trainer(override(Config(), config | run))


def _parsed(line: str) -> dict[str, Any] | None:
    """A line of the file; None for one that was torn."""
    try:
        found: dict[str, Any] = json.loads(line)
        return found
    except ValueError:
        return None


if __name__ == "__main__":
    answer({"learn": learn})
