"""Live changes on their way to the trainer, from any thread."""

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


class Wish(NamedTuple):
    """A change somebody asked for."""

    key: str
    value: Any
    source: str


def check_changes(changes: Mapping[str, Any], ppo: PPOConfig) -> dict[str, Any]:
    """The values as live changes take them. Raises ConfigError if one is not allowed."""
    checked = {key: check_live(key, value) for key, value in changes.items()}
    if checked.get("gamma") == 1.0 and ppo.normalize_reward:
        raise ConfigError("ppo.gamma: normalize_reward needs gamma < 1, got 1.0")
    return checked


class Mailbox:
    """Wishes for the next update, and changes of the journal that wait for theirs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wishes: dict[str, Wish] = {}
        self._scheduled: list[Change] = []

    def post(self, changes: Mapping[str, Any], source: str) -> None:
        """Ask for changes at the next update; a later wish for the same key replaces an earlier one."""
        with self._lock:
            for key, value in changes.items():
                self._wishes.pop(key, None)  # so that the order is that of the last wishes
                self._wishes[key] = Wish(key, value, source)

    def schedule(self, changes: Iterable[Change]) -> None:
        """Changes that were made once, to be made again at the same updates."""
        with self._lock:
            self._scheduled = sorted([*self._scheduled, *changes], key=lambda change: change.update)  # stable

    def take(self, update: int) -> tuple[list[Change], list[Wish]]:
        """What takes effect with this update; it is gone from here."""
        with self._lock:
            due = [change for change in self._scheduled if change.update <= update]
            self._scheduled = self._scheduled[len(due) :]
            wishes = list(self._wishes.values())
            self._wishes.clear()
        return due, wishes


def take_changes(state: TrainState, mailbox: Mailbox, ppo: PPOConfig, run: Run | None) -> list[Change]:
    """Put what is due with the next update in force: the journal's first, then new wishes, each written down before.

    Returns the changes. A wish for the value that rules already is none.
    """
    now = state.update + 1
    due, wishes = mailbox.take(now)
    _put_in_force(state, due)
    made = []
    for key, new, source in wishes:
        old = state.live[key].value if key in state.live else getattr(ppo, key)
        moves = key in state.adapted or getattr(ppo, f"{key}_schedule", "constant") != "constant"
        if new != old or moves:  # what moves by itself begins anew from there
            made.append(Change(now, state.global_step, key, old, new, source))
    if made and run is not None:
        run.write_down(made)
    _put_in_force(state, made)
    return [*due, *made]


def _put_in_force(state: TrainState, changes: list[Change]) -> None:
    for change in changes:
        state.live[change.key] = LiveChange(change.new, state.global_step)
        state.adapted.pop(change.key, None)
