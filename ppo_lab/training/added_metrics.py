"""Additional numbers for the record of metrics: from the environments' `metrics()` and from `trainer.record`."""

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
    """Numbers waiting for the next line of the record. Any thread may add them; the training thread takes them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, float] = {}
        self.last: dict[str, float] = {}  # metrics of the last finished update
        self.said: set[str] = set()  # warnings that are given only once, and were

    def add(self, numbers: Mapping[str, float]) -> None:
        """Add numbers; a later number replaces an earlier one of the same name."""
        with self._lock:
            self._waiting |= numbers

    def take(self) -> dict[str, float]:
        """Remove and return the waiting numbers."""
        with self._lock:
            taken, self._waiting = self._waiting, {}
        return taken

    def waiting(self) -> dict[str, float]:
        """Return the waiting numbers without removing them."""
        with self._lock:
            return dict(self._waiting)


def checked(numbers: Mapping[str, Any], taken: Collection[str]) -> dict[str, float]:
    """Return the numbers given to `trainer.record` as floats. taken: names in use, those of `env.info_metrics`.

    Raises ConfigError for an invalid name or number.
    """
    if not isinstance(numbers, Mapping):
        raise ConfigError(f"record: expected names and numbers, as {{'probe/x': 0.3}}, got {type(numbers).__name__}")
    found = {}
    for name, value in numbers.items():
        if not isinstance(name, str) or not all(part.strip() for part in name.split("/")) or "/" not in name:
            raise ConfigError(f"record: a name needs a group in front, as in 'probe/distance', got {name!r}")
        if name in LAB_METRICS or name in taken:
            raise ConfigError(f"record: {name!r} is written by the lab itself; choose another name, such as probe/...")
        number = as_float(value)
        if number is None or not math.isfinite(number):
            raise ConfigError(f"record: {name!r} needs a finite number, got {value!r}"[:300])
        found[name] = number
    return found


def env_metrics(envs: Envs) -> dict[str, float]:
    """Return the numbers of `Envs.metrics()` without NaN. Raise EnvError for an invalid name or number."""
    return dict(_of(type(envs).__name__, envs.metrics()))


def _of(name: str, given: Any) -> Iterator[tuple[str, float]]:
    if not isinstance(given, Mapping):
        raise EnvError(f"{name}.metrics() must return a dictionary of numbers, got {type(given).__name__}")
    for key, value in given.items():
        number = as_float(value)
        if number is None or math.isinf(number):
            raise EnvError(f"{name}.metrics(): {key!r} is {value!r}, which is not a finite number"[:300])
        if not isinstance(key, str) or key in (*LAB_METRICS, "update", "global_step"):
            raise EnvError(f"{name}.metrics(): {key!r} is not allowed as a name; choose another, such as task/...")
        if not math.isnan(number):
            yield key, number
