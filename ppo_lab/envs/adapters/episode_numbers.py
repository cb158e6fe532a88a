"""Reduce numbers from info to one number per episode, and average these over the last episodes that ended."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppo_lab.envs.adapters.info import InfoKeys
from ppo_lab.envs.contract import Envs

LOG = logging.getLogger("ppo_lab")
WINDOW = 100  # episodes in the mean, as in `ppo_lab.ppo.episodes`
PATIENCE = 5  # episodes that may end without a key before a warning says that it is missing


class EpisodeNumbers:
    """K numbers of each of N environments: those of the current episodes, and of the last 100 that ended."""

    def __init__(self, wanted: InfoKeys, num_envs: int) -> None:
        """Set up for `wanted`: (key, how), how one of last, sum, mean, max, min. Empty: no method does anything."""
        self.wanted = tuple(wanted)
        how = np.array([how for _, how in wanted])
        self._adds, self._mean = np.isin(how, ("sum", "mean")), how == "mean"  # (K,)
        self._keeps = np.isin(how, ("max", "min"))
        self._sign = np.where(how == "min", -1.0, 1.0)
        self._seen = np.zeros(len(wanted), np.bool_)  # (K,) seen at least once
        self.there: set[str] = set()  # keys that were seen in infos, while a wanted one is missing
        self.window: deque[np.ndarray] = deque(maxlen=WINDOW)  # (K,) each, NaN where the episode did not give it
        self.count = 0  # episodes that ended
        self._shape = num_envs, len(self.wanted)
        self.begin()

    def begin(self) -> None:
        """Start new episodes in all environments; the ended ones stay counted."""
        self._value = np.zeros(self._shape)  # (N, K) so far
        self._given = np.zeros(self._shape, np.int64)  # (N, K) number of steps that gave a value

    def empty(self) -> np.ndarray:
        """Return (N, K) NaN: no value was given."""
        return np.full(self._shape, np.nan)

    def take(self, numbers: np.ndarray, done: Tensor, valid: np.ndarray | None = None) -> None:
        """Add one step of all N: numbers (N, K) with NaN where there was none, done (N,) bool, valid (N,) bool."""
        if not self.wanted:
            return
        given, ended = ~np.isnan(numbers), done.numpy(force=True)
        if valid is not None:
            given &= valid[:, None]
        first, x = self._given == 0, np.where(given, numbers, 0.0)
        kept = np.where(first, x, self._sign * np.maximum(self._sign * self._value, self._sign * x))
        new = np.where(self._adds, self._value + x, np.where(self._keeps, kept, x))
        np.copyto(self._value, new, where=given)
        self._given += given
        if not self._seen.all():
            self._seen |= given.any(0)
        if ended.any():
            with np.errstate(invalid="ignore", divide="ignore"):
                episode = np.where(self._mean, self._value / self._given, self._value)
            episode[self._given == 0] = np.nan
            self.window.extend(episode[ended])
            self._value[ended], self._given[ended] = 0.0, 0
            before, self.count = self.count, self.count + int(ended.sum())
            if before < PATIENCE <= self.count and not self._seen.all():
                self._warn()

    def metrics(self) -> dict[str, float]:
        """Return each key's mean over those of the last 100 episodes that gave it; keys that none gave are absent."""
        if not self.window:
            return {}
        columns = np.array(self.window).T  # (K, episodes)
        return {
            f"episode/{key}": float(column[~np.isnan(column)].mean())
            for (key, _), column in zip(self.wanted, columns, strict=True)
            if not np.isnan(column).all()
        }

    def finished(self) -> dict[str, Any]:
        """Return the state of the ended episodes as tensors and plain values."""
        window = np.array(self.window).reshape(-1, len(self.wanted))
        return {
            "keys": [f"{how} {key}" for key, how in self.wanted],
            "window": torch.from_numpy(window),
            "seen": torch.from_numpy(self._seen.copy()),
            "count": self.count,
        }

    def added_to(self, state: dict[str, Any]) -> dict[str, Any]:
        """Add the numbers to a state of environments, as tensors and plain values; an empty state stays empty."""
        if not state or not self.wanted:
            return state
        value, given = torch.from_numpy(self._value.copy()), torch.from_numpy(self._given.copy())
        return {**state, "numbers": {**self.finished(), "value": value, "given": given}}

    def load_finished(self, saved: Mapping[str, Any]) -> None:
        """Load the ended episodes; each saved key goes to the place that it has now."""
        window = _placed(saved["window"].numpy(force=True), self._places(saved), np.nan)
        self.window = deque(window, maxlen=WINDOW)
        self._seen = _placed(saved["seen"].numpy(force=True), self._places(saved), False)
        self.count = int(saved["count"])

    def load(self, state: Mapping[str, Any]) -> None:
        """Load everything from a state of environments; start empty if it was saved without numbers."""
        if "numbers" not in state:
            return self.begin()
        saved = state["numbers"]
        self.load_finished(saved)
        self._value = _placed(saved["value"].numpy(force=True), self._places(saved), 0.0)
        self._given = _placed(saved["given"].numpy(force=True), self._places(saved), 0)
        return None

    def _places(self, saved: Mapping[str, Any]) -> list[int | None]:
        """Return the saved place of each of the K numbers; None: it was not saved."""
        keys = list(saved["keys"])
        return [keys.index(name) if name in keys else None for name in (f"{how} {key}" for key, how in self.wanted)]

    def _warn(self) -> None:
        missing = [key for (key, _), seen in zip(self.wanted, self._seen, strict=True) if not seen]
        there = sorted(self.there)
        LOG.warning(
            "env.info_metrics: no info of the first %d episodes had %s; available numbers: %s",
            self.count, ", ".join(map(repr, missing)), ", ".join(there[:20]) + ", ..." * (len(there) > 20) or "none",
        )  # fmt: skip


class InfoMetrics(Envs):
    """Environments whose metrics are numbers from infos (`env.info_metrics`)."""

    numbers: EpisodeNumbers

    def metrics(self) -> dict[str, float]:
        """Return the means of numbers from infos over the last 100 episodes."""
        return self.numbers.metrics()

    def metrics_state(self) -> dict[str, Any] | None:
        """Return the numbers of finished episodes; None where none are gathered."""
        return self.numbers.finished() if self.numbers.wanted else None

    def load_metrics_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a `metrics_state`."""
        self.numbers.load_finished(state)


def _placed(rows: np.ndarray, places: Sequence[int | None], otherwise: Any) -> np.ndarray:
    """Reorder the last axis by `places`, with `otherwise` where the place is None."""
    found = np.full((*rows.shape[:-1], len(places)), otherwise, rows.dtype)
    for k, place in enumerate(places):
        if place is not None:
            found[..., k] = rows[..., place]
    return found
