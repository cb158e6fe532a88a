"""Training in a terminal: the progress bar, the signals that stop it, and the last line."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from tqdm import tqdm

from ppo_lab.interrupts import GUARD
from ppo_lab.training.trainer import Trainer

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
SAME_PRESS = 0.5  # seconds: `timeout` and `make` signal a process and its group, so one press arrives twice


class StopAsked:
    """A signal handler: the first Ctrl-C or SIGTERM requests a stop, a second Ctrl-C ends the process at once.

    On a requested stop a quick update is finished first.
    """

    only_notes = True  # `interrupts` leaves SIGINT to this handler

    def __init__(self) -> None:
        self.number: int | None = None  # the signal that arrived
        self._when = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopAsked:
        GUARD.noted = False
        if threading.current_thread() is threading.main_thread():  # other threads may not set handlers
            self._before = {number: signal.signal(number, self) for number in NAMES}
        return self

    def __exit__(self, *_: object) -> None:
        GUARD.noted = False
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal. This may run in the middle of a print, so it writes past Python's buffers."""
        now = time.monotonic()
        if self.number is None:
            self.number, self._when = number, now
            GUARD.noted = True
            text = f"\n{NAMES[signal.Signals(number)]}: stopping, then saving (Ctrl-C again: end at once)\n"
            os.write(2, text.encode())
        elif number == signal.SIGINT and now - self._when > SAME_PRESS:
            os.write(2, b"\nended at once; resume continues from the last checkpoint\n")
            os._exit(128 + number)


def train(make: Callable[[], Trainer]) -> int:
    """Train to the end, or until a signal. Return the exit code: 0, or 128 + the number of the signal."""
    with StopAsked() as stop:
        trainer = make()
        with contextlib.closing(trainer):
            metrics = _follow(trainer, stop)
            stopped = stop.number is not None and not trainer.finished
            if stopped and trainer.run is not None:
                trainer.save(metrics)
        print(_last_lines(trainer, stop.number if stopped else None, trained=bool(metrics)), flush=True)
    return 128 + stop.number if stopped and stop.number is not None else 0


def _follow(trainer: Trainer, stop: StopAsked) -> Mapping[str, float]:
    """Train with a progress bar; return the metrics of the last update."""
    pause = 0.2 if sys.stderr.isatty() else 5.0  # in a log file every refresh is a new line
    state, metrics = trainer.state, {}
    name = trainer.run.name if trainer.run is not None else "training"
    print(f"{name}: {state.model.describe()}; {trainer.memory_plan}", file=sys.stderr)
    print(trainer.engine_line, file=sys.stderr)
    if trainer.thread_choice is not None:
        print(trainer.thread_choice, file=sys.stderr)
    with tqdm(
        desc=name, total=state.total_timesteps, initial=min(state.global_step, state.total_timesteps),
        unit=" steps", unit_scale=True, mininterval=pause, maxinterval=pause, dynamic_ncols=True,
    ) as bar:  # fmt: skip
        for update in trainer if stop.number is None else ():
            metrics = update.metrics
            bar.total = state.total_timesteps  # a resumed run is extended at its first update
            if "episode/return_mean" in metrics:
                bar.set_postfix_str(f"return {metrics['episode/return_mean']:.1f}", refresh=False)
            bar.update(min(update.global_step, bar.total) - bar.n)
            if stop.number is not None:
                break
    return metrics


def _last_lines(trainer: Trainer, signal_number: int | None, trained: bool) -> str:
    """Format the final message: steps trained, the run's folder, and how to continue."""
    state, run = trainer.state, trainer.run
    stopped = signal_number is not None
    how = f"stopped by {NAMES[signal.Signals(signal_number)]}" if signal_number is not None else "done"
    how = how if trained or stopped else "nothing left to do"
    parts = [f"{how}: {trainer.resume_step:,} of {state.total_timesteps:,} steps"]
    mean = state.episodes.metrics().get("episode/return_mean")
    if mean is not None:
        parts.append(f"return {mean:.1f}")
    parts.append(f"run {run.folder}" if run is not None else "nothing was written (run.root is null)")
    text = ", ".join(parts)
    if run is not None and (stopped or not trained):
        longer = "" if trained or stopped else " --total-timesteps N"
        text += f"\ncontinue with: python -m ppo_lab resume {shlex.quote(str(run.folder))}{longer}"
    return text
