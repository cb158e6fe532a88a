"""Read numbers from the `info` of environments by key: one row per environment, NaN where a key is missing.

Imports NumPy and not torch, for worker processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ppo_lab.errors import EnvError

InfoKeys = Sequence[tuple[str, str]]  # (key, how to reduce an episode's values: last, sum, mean, max or min)
ARRAYS = (bool, int, float, np.generic, np.ndarray)
WATCH = 1000  # infos searched for available keys while a wanted one is missing


class InfoReader:
    """Reads the wanted keys from infos. While one has not been seen, records the available keys for the warning."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Set up for keys such as "is_success", or "reward_terms/energy" for a key of a dictionary in info."""
        self.keys = tuple(keys)
        self.there: set[str] = set()  # keys with numbers that were seen
        self._missing, self._looked = set(range(len(self.keys))), 0
        self._told: set[str] = set()

    def read(self, info: Any, row: np.ndarray) -> None:
        """Read one environment's info into row (K,) float64. Raises EnvError for a value that is not a number."""
        for k, key in enumerate(self.keys):
            row[k] = as_number(_find(info, key), key)
        if self._missing:
            self._watch(info, ~np.isnan(row), ())

    def read_batch(self, infos: Mapping[str, Any], ended: np.ndarray) -> np.ndarray:
        """Read a vector environment's infos as (N, K) float64; where ended (N,) is True also infos["final_info"]."""
        rows = np.empty((len(ended), len(self.keys)))
        for k, key in enumerate(self.keys):
            rows[:, k] = _column(infos, key, len(ended))
        final = infos.get("final_info") if ended.any() else None
        if isinstance(final, Mapping):
            for k, key in enumerate(self.keys):
                rows[ended, k] = _column(final, key, len(ended))[ended]
        elif final is not None:  # older environments: one dictionary each
            for i in np.flatnonzero(ended):
                rows[i] = [as_number(_find(final[i], key), key) for key in self.keys]
        if self._missing:
            self._watch(infos, np.asarray((rows == rows).any(axis=0)), (len(ended),))
        return rows

    def news(self) -> tuple[str, ...]:
        """Return the keys that were first seen since the last call."""
        fresh = self.there - self._told
        self._told |= fresh
        return tuple(sorted(fresh))

    def _watch(self, info: Any, given: np.ndarray, shape: tuple[int, ...]) -> None:
        self._missing -= set(np.flatnonzero(given).tolist())
        self._looked += 1
        self.there |= set(_numbers_in(info, shape))
        if self._looked >= WATCH:
            self._missing = set()


def as_number(value: Any, key: str) -> float:
    """Convert a value of info to a float, None to NaN. Raises EnvError with key and value if it is not finite."""
    number = math.nan if value is None else as_float(value)
    if number is None or math.isinf(number):
        raise EnvError(f"env.info_metrics: info[{key!r}] is {_shown(value)}, which is not a finite number")
    return number


def as_float(value: Any) -> float | None:
    """Convert a number, a bool, or an array or tensor of one element to a float; return None for everything else."""
    try:
        if isinstance(value, bool | int | float):
            return float(value)
        array = _array(value)
        return float(array.reshape(())[()]) if array.size == 1 and array.dtype.kind in "biuf" else None
    except (TypeError, ValueError, OverflowError):
        return None


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.numpy(force=True) if hasattr(value, "detach") else value)  # a tensor, also on a GPU


def _shown(value: Any) -> str:
    text = " ".join(f"{type(value).__name__} {value!r}".split())
    return text if len(text) <= 80 else text[:77] + "..."


def _find(info: Any, key: str) -> Any:
    """Return the value of a key, or of "outer/inner" in a nested dictionary; None if there is none."""
    if not isinstance(info, Mapping):
        return None
    if key in info:
        return info[key]
    outer, slash, inner = key.partition("/")
    return _find(info[outer], inner) if slash and outer in info else None


def _column(infos: Mapping[str, Any], key: str, num_envs: int) -> np.ndarray:
    """Return a key of a vector environment's infos as (N,) float64, NaN where its mask `_key` is False."""
    outer, slash, inner = key.partition("/")
    if key not in infos:
        found = infos.get(outer) if slash else None
        if isinstance(found, Mapping):
            return _column(found, inner, num_envs)
        if found is None or len(found) != num_envs:
            return np.full(num_envs, np.nan)
        return np.array([as_number(_find(one, inner), key) for one in found])  # a dictionary for each environment
    value, mask = infos[key], infos.get(f"_{key}")
    array = _array(value)
    if array.shape == ():
        return np.full(num_envs, as_number(value, key))
    if array.size != num_envs or len(array) != num_envs:
        raise EnvError(f"env.info_metrics: infos[{key!r}] has shape {array.shape}, expected ({num_envs},)")
    given = np.ones(num_envs, np.bool_) if mask is None else np.asarray(mask, np.bool_)
    flat = array.reshape(num_envs)
    if array.dtype.kind in "biuf" and not np.isinf(column := np.where(given, flat, np.nan)).any():
        return column
    return np.array([as_number(one, key) if is_given else np.nan for one, is_given in zip(flat, given, strict=True)])


def _numbers_in(info: Any, shape: tuple[int, ...], prefix: str = "") -> Iterator[str]:
    """Yield the keys of an info that hold a number, or, for a vector environment, arrays of this shape."""
    for key, value in info.items() if isinstance(info, Mapping) else ():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _numbers_in(value, shape, f"{name}/")
        elif str(key).startswith("_"):
            continue  # the mask of a key in a vector environment
        elif isinstance(value, ARRAYS) or hasattr(value, "detach"):
            size = tuple(getattr(value, "shape", ()))
            if size in (shape, (), (1,)):  # neither an observation nor an action mask
                yield name
