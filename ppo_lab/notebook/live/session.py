"""A session: training that runs in a notebook, and the calls that inspect and steer it meanwhile."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np
from IPython.core.getipython import get_ipython

from ppo_lab.envs.contract import EnvFactory, Envs
from ppo_lab.errors import ConfigError, RunError
from ppo_lab.evaluation.policy import Policy
from ppo_lab.interrupts import sigterm_held_back
from ppo_lab.notebook.data.history import History
from ppo_lab.notebook.data.last_update import LastUpdate
from ppo_lab.notebook.live import training
from ppo_lab.notebook.live.training import Others, Training
from ppo_lab.training.trainer import Trainer

T = TypeVar("T")
OVER = "training is over; launch(session.trainer) continues it"


class SessionView(Protocol):
    """The display of a session: the dashboard, or lines of text.

    `refresh` and `finish` are called on the training thread.
    """

    def refresh(self, session: Session, force: bool = False) -> None:
        """Show the state after an update if a refresh is due, or if `force`."""
        ...

    def finish(self, session: Session) -> None:
        """Leave static pictures. Called when training is over."""
        ...

    def show(self, session: Session) -> None:
        """Show it (again) under the current cell."""
        ...


class Session:
    """Training that is running or over. Every method may be called from any thread and any cell."""

    def __init__(self, trainer: Trainer, before: Session | None = None) -> None:
        """Create a session. before: the session that this one continues, in the same plots."""
        self._training: Training = Training(trainer, before._training if before is not None else None)
        self.view: SessionView | None = None
        self._complaint = ""  # the last error of the view that was printed

    def __repr__(self) -> str:
        state = "failed" if self.error else "paused" if self.paused else "training" if self.running else "done"
        return f"<Session {state} at step {self.trainer.state.global_step:,}>"

    # ---- for notebook cells ----------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether training is running; it may be paused."""
        return not self._training.done.is_set()

    @property
    def paused(self) -> bool:
        """Whether `pause` was called and `resume` was not."""
        return self._training.paused and self.running

    @property
    def trainer(self) -> Trainer:
        """The trainer; after a fork or a rewind, the one of the new run."""
        return self._training.trainer

    @property
    def error(self) -> BaseException | None:
        """The exception that ended training; None if there was none."""
        return self._training.error

    @property
    def records(self) -> History:
        """The metrics of every update so far."""
        return self._training.records

    @property
    def others(self) -> Others:
        """The runs that this one was forked from: name -> history."""
        return self._training.others

    @property
    def history(self) -> dict[str, np.ndarray]:
        """Every metric as an array over the updates so far, NaN where it did not exist."""
        return self.records.columns()

    def wait(self) -> None:
        """Wait until training is over; raise what it raised. The interrupt button ends training, not the notebook."""
        try:
            self._training.done.wait()
        except KeyboardInterrupt:
            self.stop()
        if self.error is not None:
            raise self.error

    def stop(self, wait: bool = True) -> None:
        """End training after this update, or at once in the middle of a long one, and save.

        `launch(session.trainer)` continues from there.
        """
        self._training.stop = True
        self.trainer.pause()
        self._training.boundary.wake()  # else a paused session would wait for ever
        if wait and not self._training.boundary.is_here():
            self._training.done.wait()

    def pause(self) -> None:
        """Pause training at the next update boundary."""
        self._training.paused = True

    def resume(self) -> None:
        """Continue after `pause`."""
        self._training.paused, self._training.left = False, 0
        self._training.boundary.wake()

    def step(self, updates: int = 1, wait: bool = True) -> None:
        """Do this many updates, then pause; wait: return when they are done, and raise what training raised meanwhile.

        Raises ConfigError if `updates` < 1, and RunError if training is over.
        """
        if updates < 1:
            raise ConfigError(f"step: updates must be at least 1, got {updates}")
        if not self.running:
            raise RunError(OVER)
        self._training.left += updates
        self._training.paused = True
        self._training.boundary.wake()
        while wait and self.running and self.at_boundary(lambda: self._training.left):
            pass
        if wait and self.error is not None:
            raise self.error

    def succeeds(self, trainer: Trainer) -> bool:
        """Return whether `trainer` is the one of this session, or one that a fork has replaced."""
        return trainer is self.trainer or trainer in self._training.replaced

    def set(self, *, source: str = "code", **changes: Any) -> None:
        """Change settings of ppo while training runs, e.g. set(learning_rate=1e-4). Raises ConfigError."""
        self._training.pending_changes.ask(self.trainer, source, changes)

    def undo(self, *, source: str = "code") -> dict[str, Any]:
        """Undo the last change made with `set` or a slider; a second call undoes the one before. Return the new values.

        A setting with a schedule returns to where the schedule would be now.
        """
        return self._training.pending_changes.undo(self.trainer, source)

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to undo."""
        return self._training.pending_changes.can_undo

    @property
    def pending(self) -> dict[str, Any]:
        """Changes that the trainer has not applied yet: it applies them when the next update begins."""
        return self._training.pending_changes.pending

    def save(self) -> Path | None:
        """Save a checkpoint at the next update boundary. Raises RunError if there is no run folder."""
        return self.at_boundary(lambda: self.trainer.save())  # lambda: a fork may replace the trainer first

    def fork(self, at: int | str | None = None, envs: Envs | EnvFactory | None = None, **overrides: Any) -> str:
        """Continue in a new run that begins at a checkpoint of this one.

        at: the checkpoint's step, "latest" or "best"; None: save one now, and begin there.
        envs: environments like the old ones, for a trainer that was given its own; a factory is reused automatically.
        overrides: settings of ppo for the new run, e.g. fork(clip_coef=0.1). Without `at`, pending changes carry over.
        The old run is closed and stays unchanged.
        Returns the new run's name; `session.trainer` becomes its trainer. Raises RunError or ConfigError; training then
        continues in the old run.
        """
        settings = {key if "." in key else f"ppo.{key}": value for key, value in overrides.items()}

        def fork() -> str:
            name = self._training.fork(at, settings, envs)
            self._refresh(True)  # while paused, nothing else would redraw
            return name

        return self.at_boundary(fork)

    def policy(self) -> Policy:
        """Return a copy of the policy. While training runs, wait for the next update boundary first."""
        return self.at_boundary(lambda: self.trainer.policy())

    def last_update(self) -> LastUpdate | None:
        """Return the data and the effect of the last update; None before the first."""
        return self.at_boundary(self._training.look_inside)

    def dashboard(self) -> None:
        """Show this session again, under the current cell, e.g. after a reload of the page."""
        if self.view is not None:
            self.view.show(self)

    def at_boundary(self, call: Callable[[], T]) -> T:
        """Run `call()` between two updates, where the trainer's state is consistent, and return its result."""
        return self.soon(call).result()

    def soon(self, call: Callable[[], T]) -> Future[T]:
        """Schedule `call()` as `at_boundary` does, without waiting for it."""
        return self._training.boundary.ask(call)

    # ---- for `launch` ------------------------------------------------------------------------------------------------

    def train_in_background(self, view: SessionView) -> None:
        """Start a thread that trains and refreshes the view. Call it once, from the cell the output belongs to."""
        shell: Any = get_ipython()
        cell = shell.get_parent() if shell is not None and hasattr(shell, "get_parent") else None
        begun = threading.Event()

        def train() -> None:
            if cell is not None:
                shell.set_parent(cell)  # else output and errors appear under the cell that ran last
            self._train(view, begun)
            if self.error is not None and shell is not None:
                shell.showtraceback(_exception_info(self.error))

        # daemon: a kernel restart does not wait for it
        threading.Thread(target=train, name="ppo_lab training", daemon=True).start()
        begun.wait()

    def train_here(self, view: SessionView) -> None:
        """Train and refresh the view until training is over; raise what it raised. SIGTERM stops it as `stop` does."""
        with sigterm_held_back(lambda: self.stop(wait=False)):
            self._train(view, threading.Event())
        if self.error is not None:
            raise self.error

    def _train(self, view: SessionView, begun: threading.Event) -> None:
        self.view = view
        self._training.run(self._refresh, lambda: self._show(lambda: view.finish(self)), begun)

    def _refresh(self, force: bool) -> None:
        view = self.view
        if view is not None:
            self._show(lambda: view.refresh(self, force))

    def _show(self, show: Callable[[], None]) -> None:
        try:
            show()
        except Exception as error:  # a drawing error must not end the run
            complaint = f"the view of this session failed: {type(error).__name__}: {error}"
            if complaint != self._complaint:  # once, not at every update
                self._complaint = complaint
                print(complaint, file=sys.stderr, flush=True)


def _exception_info(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """Return the triple of sys.exc_info() without the leading frames of the training thread."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename == training.__file__:
        trace = trace.tb_next
    return type(error), error, trace
