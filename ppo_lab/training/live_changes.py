"""Changes of settings during training: requested from any thread, applied before the next update."""

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
    """A requested change."""

    key: str
    value: Any
    source: str


def check_changes(changes: Mapping[str, Any], ppo: PPOConfig) -> dict[str, Any]:
    """Return the checked values of live changes. Raise ConfigError if one is not allowed."""
    checked = {key: check_live(key, value) for key, value in changes.items()}
    if checked.get("gamma") == 1.0 and ppo.normalize_reward:
        raise ConfigError("ppo.gamma: normalize_reward needs gamma < 1, got 1.0")
    return checked


class PendingChanges:
    """Changes requested since the last update, and changes of a journal to apply again at their updates."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[str, Pending] = {}
        self._scheduled: list[Change] = []

    def post(self, changes: Mapping[str, Any], source: str) -> None:
        """Request changes for the next update; a later value for the same key replaces an earlier one."""
        with self._lock:
            for key, value in changes.items():
                self._asked.pop(key, None)  # so that the order is that of the latest requests
                self._asked[key] = Pending(key, value, source)

    def schedule(self, changes: Iterable[Change]) -> None:
        """Schedule changes of a journal, each at its own update; they are not written to the journal again."""
        with self._lock:
            self._scheduled = sorted([*self._scheduled, *changes], key=lambda change: change.update)  # stable

    def take(self, update: int) -> tuple[list[Change], list[Pending]]:
        """Remove and return what takes effect with this update: (changes of a journal, requested changes)."""
        with self._lock:
            due = [change for change in self._scheduled if change.update <= update]
            self._scheduled = self._scheduled[len(due) :]
            asked = list(self._asked.values())
            self._asked.clear()
        return due, asked


def apply_changes(state: TrainState, pending: PendingChanges, ppo: PPOConfig, run: Run | None) -> list[Change]:
    """Apply the changes due at the next update: first those of a journal, then new ones, which are journaled first.

    Return the changes. Setting the value that is already in effect is no change, unless the value has a schedule or is
    adapted.
    """
    now = state.update + 1
    due, asked = pending.take(now)
    _put_in_force(state, due)
    made = []
    for key, new, source in asked:
        old = state.live[key].value if key in state.live else getattr(ppo, key)
        moves = key in state.adapted or getattr(ppo, f"{key}_schedule", "constant") != "constant"
        if new != old or moves:  # a schedule or an adaptation starts over from the value that was set
            made.append(Change(now, state.global_step, key, old, new, source))
    if made and run is not None:
        run.write_down(made)
    _put_in_force(state, made)
    return [*due, *made]


def _put_in_force(state: TrainState, changes: list[Change]) -> None:
    for change in changes:
        state.live[change.key] = LiveChange(change.new, state.global_step)
        state.adapted.pop(change.key, None)
