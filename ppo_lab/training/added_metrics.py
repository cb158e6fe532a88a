"""Numbers for the record that are not the lab's own: from the environments' `metrics()`, and from `trainer.record`."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ppo_lab.envs.adapters.info import as_float
from ppo_lab.envs.contract import Envs
from ppo_lab.errors import ConfigError, EnvError

LAB_METRICS = frozenset({
    "episode/return_mean", "episode/return_std", "episode/length_mean", "episode/count",
    "loss/policy", "loss/value", "loss/entropy",
    "update/approx_kl", "update/clip_fraction", "update/grad_norm", "update/learning_rate",
    "update/critic_learning_rate", "update/clip_coef", "update/ent_coef", "update/gradient_steps",
    "update/skipped_steps", "update/explained_variance", "update/kl",
    "time/rollout_seconds", "time/learn_seconds", "time/steps_per_second",
    "eval/return_mean", "eval/cut_off",
})  # fmt: skip


class AddedMetrics:
    """Numbers that wait for the line of an update. Any thread adds, the one that trains takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, float] = {}
        self.last: dict[str, float] = {}  # metrics of the last update that was finished
        self.said: set[str] = set()  # warnings that were given once

    def add(self, numbers: Mapping[str, float]) -> None:
        """Let them wait; a later number takes the place of an earlier one of the same name."""
        with self._lock:
            self._waiting |= numbers

    def take(self) -> dict[str, float]:
        """Return what waits, and remove it from here."""
        with self._lock:
            taken, self._waiting = self._waiting, {}
        return taken

    def waiting(self) -> dict[str, float]:
        """Return what waits; it stays."""
        with self._lock:
            return dict(self._waiting)


def checked(numbers: Mapping[str, Any], taken: Collection[str]) -> dict[str, float]:
    """Check the numbers of `trainer.record`. taken: names of `env.info_metrics`. Raise ConfigError for an invalid
    one.
    """
    if not isinstance(numbers, Mapping):
        raise ConfigError(f"record: names and numbers, e.g. {{'probe/distance': 0.3}}, got {type(numbers).__name__}")
    found = {}
    for name, value in numbers.items():
        if not isinstance(name, str) or not all(part.strip() for part in name.split("/")) or "/" not in name:
            raise ConfigError(f"record: a name has a group in front, as in 'probe/distance', got {name!r}")
        if name in LAB_METRICS or name in taken:
            raise ConfigError(f"record: {name!r} is written by the lab itself; choose another name, as probe/...")
        number = as_float(value)
        if number is None or not math.isfinite(number):
            raise ConfigError(f"record: {name!r} takes a finite number, got {value!r}"[:300])
        found[name] = number
    return found


def env_metrics(envs: Envs) -> dict[str, float]:
    """Return the finite numbers of `Envs.metrics()`, NaN left out. Raise EnvError for what is no number."""
    return dict(_of(type(envs).__name__, envs.metrics()))


def _of(name: str, given: Any) -> Iterator[tuple[str, float]]:
    if not isinstance(given, Mapping):
        raise EnvError(f"{name}.metrics() returns a dictionary of numbers, got {type(given).__name__}")
    for key, value in given.items():
        number = as_float(value)
        if number is None or math.isinf(number):
            raise EnvError(f"{name}.metrics(): {key!r} is {value!r}, which is no finite number"[:300])
        if not isinstance(key, str) or key in (*LAB_METRICS, "update", "global_step"):
            raise EnvError(f"{name}.metrics(): {key!r} is no name for a number here; choose another, as task/...")
        if not math.isnan(number):
            yield key, number
