"""Summarize a run's progress, for the reader of the notebook and for the program that executes it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppo_lab.evaluation.statistics import describe, mean_interval
from ppo_lab.training.trainer import Trainer

if TYPE_CHECKING:
    from ppo_lab.notebook.live.session import Session

ANNOUNCE = "PPO_LAB_ANNOUNCE"  # environment variable: the file into which a notebook writes its run's folder
SUMMARY = "summary.json"


@dataclass(frozen=True)
class Report:
    """The state of a run in numbers. Returns are those of the last 100 training episodes."""

    training: bool  # still running
    return_mean: float | None  # None: no episode has ended yet
    return_low: float | None  # 95 % interval of the mean; None with fewer than two episodes
    return_high: float | None
    episodes: int  # that the mean is taken over
    score: str  # return and interval as text
    global_step: int
    total_timesteps: int
    seconds: float  # spent on updates, without pauses and drawing
    steps_per_second: float | None
    run: str | None  # the run's folder

    def __str__(self) -> str:
        lines = [("mean return", self.score), ("env steps", f"{self.global_step:,} of {self.total_timesteps:,}")]
        if self.steps_per_second is not None:
            lines.append(("time", f"{self.seconds:.1f} s, {self.steps_per_second:,.0f} steps per second"))
        if self.run is not None:
            lines.append(("run", self.run))
        text = "\n".join(f"{name:<12} {value}" for name, value in lines)
        return f"Training is still running; run this cell again for the result.\n{text}" if self.training else text

    __repr__ = __str__


def report(session: Session) -> Report:
    """Return the state of the session's run; when training is over, also write it to summary.json in its folder."""
    training = session.running
    result = session.at_boundary(lambda: _report(session, training))
    run = session.trainer.run
    if run is not None and not training:
        (run.folder / SUMMARY).write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    return result


def announce(trainer: Trainer) -> None:
    """Write the run's folder and length to the file named by PPO_LAB_ANNOUNCE, which `headless.execute` reads.

    Does nothing without that variable or without a run folder.
    """
    path = os.environ.get(ANNOUNCE)
    if path and trainer.run is not None:
        about = {"run": str(trainer.run.folder.resolve()), "total_timesteps": trainer.state.total_timesteps}
        draft = Path(f"{path}.draft")
        draft.write_text(json.dumps(about), encoding="utf-8")
        draft.replace(path)  # atomic: the reader never sees half a file


def _report(session: Session, training: bool) -> Report:
    trainer, history = session.trainer, session.history
    returns = np.array(list(trainer.state.episodes.returns), dtype=np.float64)  # (episodes,)
    low, high = mean_interval(returns) if len(returns) > 1 else (math.nan, math.nan)
    known = math.isfinite(low) and math.isfinite(high)
    seconds, speed = _timing(history)
    return Report(
        training=training,
        return_mean=float(returns.mean()) if len(returns) else None,
        return_low=low if known else None,
        return_high=high if known else None,
        episodes=len(returns),
        score=_score(returns),
        global_step=trainer.state.global_step,
        total_timesteps=trainer.state.total_timesteps,
        seconds=seconds,
        steps_per_second=speed,
        run=os.path.relpath(trainer.run.folder) if trainer.run is not None else None,
    )


def _score(returns: np.ndarray) -> str:
    if not len(returns):
        return "no episode has ended yet"
    count = f"{len(returns)} episodes)"
    return describe(returns).replace(f", {count}", f", last {count}")


def _timing(history: dict[str, np.ndarray]) -> tuple[float, float | None]:
    """Return the seconds spent on the updates of a history, and the mean env steps per second."""
    names = ("time/rollout_seconds", "time/learn_seconds", "time/steps_per_second")
    if not all(name in history for name in names):
        return 0.0, None
    rollout, learn, speed = (history[name] for name in names)  # (updates,) each
    seconds = rollout + learn
    return float(seconds.sum()), float((speed * seconds).sum() / seconds.sum())
