"""The pending live changes of a session, and undo."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from ppo_lab.ppo.schedules import LiveChange, in_force, settings_at
from ppo_lab.training.trainer import Trainer


class Before(NamedTuple):
    """A setting before a change, for undo."""

    key: str
    live: LiveChange | None  # the live change in force until then; None: the config
    pending: Any  # a pending value, not applied yet; None: there was none
    adapted: float | None  # the value to which an adaptive schedule had moved it; None: it had not


class PendingChanges:
    """The changes requested through a session that the trainer has not applied yet, and a history for undo.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[str, tuple[Any, int]] = {}  # setting -> requested value, updates done by then
        self._before: list[list[Before]] = []  # one entry per change, the newest last

    @property
    def pending(self) -> dict[str, Any]:
        """Setting -> requested value that the trainer has not applied yet."""
        with self._lock:
            return {key: value for key, (value, _) in self._asked.items()}

    def ask(self, trainer: Trainer, source: str, changes: dict[str, Any], undoable: bool = True) -> None:
        """Pass changes to the trainer, all or none. Raises ConfigError."""
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
        """Remove the changes that the update just done has applied."""
        with self._lock:
            for key, (value, updates_before) in list(self._asked.items()):
                took = key in live and live[key].value == value
                if took or update > updates_before + 1:  # applied and changed again since, or equal to the old value
                    del self._asked[key]

    def undo(self, trainer: Trainer, source: str) -> dict[str, Any]:
        """Request the values before the last change that was not undone yet, and return them; {} if there is none."""
        with self._lock:
            before = self._before.pop() if self._before else []
        changes = {was.key: _value_now(trainer, was) for was in before}
        if changes:
            self.ask(trainer, source, changes, undoable=False)
        return changes

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to undo."""
        return bool(self._before)

    def forget(self) -> dict[str, Any]:
        """Clear the pending changes and the undo history, for a fork. Return what was pending."""
        with self._lock:
            pending = {key: value for key, (value, _) in self._asked.items()}
            self._asked.clear()
            self._before.clear()
        return pending


def _value_now(trainer: Trainer, was: Before) -> Any:
    """Return the value the setting would have now without the change.

    A schedule has advanced meanwhile; an adapted value is the one before the change.
    """
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
    """Return the current value of an adaptive setting; None for other settings, or while it has its initial value."""
    state, ppo = trainer.state, trainer.config.ppo
    start = settings_at(ppo, state.live, state.global_step, state.total_timesteps)
    now = in_force(start, state.adapted)
    return None if getattr(now, key, None) == getattr(start, key, None) else float(getattr(now, key))
