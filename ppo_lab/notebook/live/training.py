"""The training thread: one update after the other, and between two of them the calls of other threads."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ppo_lab.envs.contract import EnvFactory, Envs
from ppo_lab.errors import RunError
from ppo_lab.notebook.data.history import History
from ppo_lab.notebook.data.last_update import LastUpdate, look_inside
from ppo_lab.notebook.live.boundary import Boundary
from ppo_lab.notebook.live.pending_changes import PendingChanges
from ppo_lab.ppo.events import AdvantagesEstimated, Event, RolloutCollected, Update
from ppo_lab.training.trainer import Trainer

Others = dict[str, dict[str, np.ndarray]]  # name of a run -> its history


class Training:
    """The training loop of a session. Any thread may set `stop`, `paused` and `left`, and then wakes the boundary."""

    def __init__(self, trainer: Trainer, before: Training | None = None) -> None:
        """Create it. before: the one that this one continues."""
        self.trainer = trainer  # a fork replaces it
        self.records: History = before.records if before is not None else History()
        self.others: Others = before.others if before is not None else {}  # runs this one was forked from
        # trainers that forks have replaced
        self.replaced: weakref.WeakSet[Trainer] = before.replaced if before is not None else weakref.WeakSet()
        self.error: BaseException | None = None  # the exception that ended training
        self.done = threading.Event()  # set while not training: before it starts, and when it is over
        self.done.set()
        self.boundary = Boundary()
        self.pending_changes = PendingChanges()
        self.stop = False
        self.paused = False
        self.left = 0  # updates to do although paused
        self._learned: AdvantagesEstimated | None = None  # of the last update
        self._statistics: dict[str, Any] | None = None  # the model's buffers when its rollout was collected

    def run(self, refresh: Callable[[bool], None], finish: Callable[[], None], begun: threading.Event) -> None:
        """Train in this thread until training is over; store what it raises in `error`.

        refresh: called after every update, with True when training is about to pause. finish: called at the end.
        """
        self.done.clear()
        self.boundary.open()
        begun.set()
        try:
            while True:
                try:
                    if self._updates(self.trainer, refresh):
                        break
                except KeyboardInterrupt:  # main thread only; the interrupted update is finished or can be left
                    self.stop = True
                    if self.trainer.can_be_left:
                        break
            if self.stop and self.trainer.run is not None and not self.trainer.finished:
                self.trainer.save()
        except BaseException as error:
            self.error = error
            self._learned = None  # the rollout may be partly overwritten by the next one
        try:
            finish()
        finally:
            try:
                self.boundary.close()
            finally:
                self.done.set()

    def look_inside(self) -> LastUpdate | None:
        """Return the data of the last update; None before the first. Call it at a boundary."""
        if self._learned is None or self._statistics is None or not len(self.records):
            return None
        return look_inside(self.trainer, self._learned.advantage, self._learned.returns, self._statistics)

    def fork(self, at: int | str | None, overrides: dict[str, Any], envs: Envs | EnvFactory | None) -> str:
        """Replace the trainer by a fork, and return its name. Call it at a boundary. Raises RunError, ConfigError."""
        old = self.trainer
        if old.run is None:
            raise RunError("cannot fork without a run folder: run.root is null")
        if at is None:
            old.save()
        step = old.state.global_step if at is None else at
        new = type(old).fork(old.run.folder, step, overrides, old.env_factory if envs is None else envs)
        assert new.run is not None  # a fork has a folder
        self.others[old.run.name] = self.records.columns()
        self.records = self.records.until(new.state.update)
        self.replaced.add(old)
        self.trainer, self._learned = new, None
        pending = self.pending_changes.forget()
        if at is None and pending:
            self.pending_changes.ask(new, "fork", pending)
        old.close()
        return new.run.name

    def _updates(self, trainer: Trainer, refresh: Callable[[bool], None]) -> bool:
        """Train until the end, a stop, or a fork that replaces the trainer. Return whether training is over."""
        for event in trainer.events():
            self._look_at(event)
            if isinstance(event, Update):
                self.records.append(event)
                self.pending_changes.taken(event.update, trainer.state.live)
                refresh(self._holds())
                self.boundary.work(self._holds)
                if self.paused and self.left:
                    self.left -= 1
                if self.stop or self.trainer is not trainer:
                    return self.stop
        return True

    def _holds(self) -> bool:
        return self.paused and not self.left and not self.stop

    def _look_at(self, event: Event) -> None:
        """Keep what `look_inside` needs: a reference to the estimated advantages, and a copy of the model's buffers."""
        if isinstance(event, RolloutCollected):
            self._statistics = {name: buffer.clone() for name, buffer in self.trainer.state.model.named_buffers()}
        elif isinstance(event, AdvantagesEstimated):
            self._learned = event
