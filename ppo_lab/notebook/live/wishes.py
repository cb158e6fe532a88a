"""Live changes a person asked for: which of them wait for the trainer, and how the last one is undone."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from ppo_lab.ppo.schedules import LiveChange, in_force, settings_at
from ppo_lab.training.trainer import Trainer


class Before(NamedTuple):
    """What a setting was when somebody changed it."""

    key: str
    live: LiveChange | None  # the change that ruled until then; None: the config
    pending: Any  # what had been asked for and was not taken yet; None: nothing
    adapted: float | None  # where it had moved by itself; None: it does not


class Wishes:
    """Called by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[str, tuple[Any, int]] = {}  # setting -> value asked for, updates done by then
        self._before: list[list[Before]] = []  # of every change, the last one at the end

    @property
    def pending(self) -> dict[str, Any]:
        """Setting -> value that was asked for and that the trainer has not taken yet."""
        with self._lock:
            return {key: value for key, (value, _) in self._asked.items()}

    def ask(self, trainer: Trainer, source: str, changes: dict[str, Any], undoable: bool = True) -> None:
        """Hand changes to the trainer, all or none. Raises ConfigError."""
        with self._lock:
            trainer.set(source=source, **changes)
            live = trainer.state.live
            before = [
                Before(key, live.get(key), self._asked.get(key, (None,))[0], _adapted(trainer, key)) for key in changes
            ]
            if undoable:
                self._before.append(before)
            self._asked.update({key: (value, trainer.state.update) for key, value in changes.items()})

    def taken(self, update: int, live: dict[str, LiveChange]) -> None:
        """An update is done: what it took is no longer pending."""
        with self._lock:
            for key, (value, updates_before) in list(self._asked.items()):
                took = key in live and live[key].value == value
                if took or update > updates_before + 1:  # taken and changed again since, or nothing new to take
                    del self._asked[key]

    def undo(self, trainer: Trainer, source: str) -> dict[str, Any]:
        """Ask for what ruled before the last change that was not undone yet; {} if there is none."""
        with self._lock:
            before = self._before.pop() if self._before else []
        changes = {was.key: _value_now(trainer, was) for was in before}
        if changes:
            self.ask(trainer, source, changes, undoable=False)
        return changes

    @property
    def can_undo(self) -> bool:
        """There is a change to undo."""
        return bool(self._before)

    def forget(self) -> dict[str, Any]:
        """Another run goes on: nothing is pending in it, and there is nothing to undo. Returns what was pending."""
        with self._lock:
            pending = {key: value for key, (value, _) in self._asked.items()}
            self._asked.clear()
            self._before.clear()
        return pending


def _value_now(trainer: Trainer, was: Before) -> Any:
    """What the setting would be now without the change: a schedule has gone on meanwhile, what adapts has not."""
    if was.pending is not None:
        return was.pending
    if was.adapted is not None:
        return was.adapted
    state, ppo = trainer.state, trainer.config.ppo
    live = {key: change for key, change in state.live.items() if key != was.key}
    if was.live is not None:
        live[was.key] = was.live
    return getattr(settings_at(ppo, live, state.global_step, state.total_timesteps), was.key)


def _adapted(trainer: Trainer, key: str) -> float | None:
    """Where a setting that adapts itself has gone; None for others, and where it stands at its start."""
    state, ppo = trainer.state, trainer.config.ppo
    start = settings_at(ppo, state.live, state.global_step, state.total_timesteps)
    now = in_force(start, state.adapted)
    return None if getattr(now, key, None) == getattr(start, key, None) else float(getattr(now, key))
