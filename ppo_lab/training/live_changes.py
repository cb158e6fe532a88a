"""Live changes: pending from any thread, applied at the next update boundary."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ppo_lab.config import PPOConfig
from ppo_lab.config.loading import check_live
from ppo_lab.errors import ConfigError
from ppo_lab.ppo.schedules import LiveChange
from ppo_lab.ppo.state import TrainState
from ppo_lab.runs.journal import Change
from ppo_lab.runs.run import Run


class Pending(NamedTuple):
    """A change that was asked for."""

    key: str
    value: Any
    source: str


def check_changes(changes: Mapping[str, Any], ppo: PPOConfig) -> dict[str, Any]:
    """Return the values as live changes take them. Raise ConfigError if one is not allowed."""
    checked = {key: check_live(key, value) for key, value in changes.items()}
    if checked.get("gamma") == 1.0 and ppo.normalize_reward:
        raise ConfigError("ppo.gamma: normalize_reward needs gamma < 1, got 1.0")
    return checked


class PendingChanges:
    """Changes asked for since the last update, and changes of a journal that are made again at their updates."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[str, Pending] = {}
        self._scheduled: list[Change] = []

    def post(self, changes: Mapping[str, Any], source: str) -> None:
        """Ask for changes at the next update; a later value for the same key replaces an earlier one."""
        with self._lock:
            for key, value in changes.items():
                self._asked.pop(key, None)  # so that the order is that of the last ones
                self._asked[key] = Pending(key, value, source)

    def schedule(self, changes: Iterable[Change]) -> None:
        """Make changes of a journal again, each at its own update, without another entry."""
        with self._lock:
            self._scheduled = sorted([*self._scheduled, *changes], key=lambda change: change.update)  # stable

    def take(self, update: int) -> tuple[list[Change], list[Pending]]:
        """Remove and return what takes effect with this update."""
        with self._lock:
            due = [change for change in self._scheduled if change.update <= update]
            self._scheduled = self._scheduled[len(due) :]
            asked = list(self._asked.values())
            self._asked.clear()
        return due, asked


def apply_changes(state: TrainState, pending: PendingChanges, ppo: PPOConfig, run: Run | None) -> list[Change]:
    """Apply what is due with the next update: the journal's first, then new changes, each journaled before.

    Returns the changes. A change to the value that is in force already is none.
    """
    now = state.update + 1
    due, asked = pending.take(now)
    _put_in_force(state, due)
    made = []
    for key, new, source in asked:
        old = state.live[key].value if key in state.live else getattr(ppo, key)
        moves = key in state.adapted or getattr(ppo, f"{key}_schedule", "constant") != "constant"
        if new != old or moves:  # a schedule or an adapted value starts over from there
            made.append(Change(now, state.global_step, key, old, new, source))
    if made and run is not None:
        run.write_down(made)
    _put_in_force(state, made)
    return [*due, *made]


def _put_in_force(state: TrainState, changes: list[Change]) -> None:
    for change in changes:
        state.live[change.key] = LiveChange(change.new, state.global_step)
        state.adapted.pop(change.key, None)
