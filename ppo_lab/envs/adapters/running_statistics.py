"""Detect environments and wrappers that keep running statistics: a recreated one starts with fresh statistics."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

LOG = logging.getLogger("ppo_lab")
NAMES = {  # usual names of attributes with running statistics
    "obs_rms", "return_rms", "ret_rms", "reward_rms", "rew_rms", "rms", "running_mean", "running_var", "running_std",
    "running_mean_std", "running_stats", "running_statistics",
}  # fmt: skip
INSIDE = ("env", "venv", "envs")  # attributes that hold the wrapped environment
SPREAD, COUNT = {"var", "variance", "std", "m2"}, {"count", "n", "num_samples", "n_samples"}
MOST = 50  # wrappers that are inspected: they may form a cycle


def find_statistics(env: Any) -> str | None:
    """Return where an environment or its wrapper keeps running statistics: "NormalizeObservation.obs_rms", or None.

    Finds only attributes with a usual name, or that hold a mean, a variance and a count. Of several environments only
    the first is inspected.
    """
    try:
        return _find(env)
    except Exception:  # a proxy of a deleted object, third-party code that raises
        return None


def _find(env: Any) -> str | None:
    for one in _layers(env):
        mine = _fields(one)
        for name, value in mine.items():
            named = name.lstrip("_") in NAMES and value is not None and value is not False
            if named or _is_moments(value):
                return f"{type(one).__name__}.{name}"
        plain = {name.lstrip("_").lower() for name in mine}
        if "mean" in plain and "count" in plain and plain & (SPREAD - {"std"}):  # a bandit has mean, std and n
            return f"{type(one).__name__}.mean"
    return None


def warn_of_statistics(place: str | None) -> None:
    """Warn in one line that environments keep running statistics. place: where (`Envs.running_statistics`)."""
    if place is not None:
        LOG.warning(
            "%s keeps running statistics: each evaluation starts with fresh ones, and predict has none; "
            "use model.normalize_obs (for rewards ppo.normalize_reward) instead",
            place,
        )


def _layers(env: Any) -> Iterator[Any]:
    """Yield the environment and what it wraps, outermost first."""
    for _ in range(MOST):
        yield env
        fields = _fields(env)
        inner = next((fields[key] for name in INSIDE for key in (name, f"_{name}") if key in fields), None)
        env = inner[0] if isinstance(inner, list | tuple) and inner else inner
        if env is None:
            return


def _is_moments(value: Any) -> bool:
    """Return whether it holds a mean, a spread and a count as numbers: arrays have methods with these names."""
    if hasattr(type(value), "step"):
        return False  # an environment: it is inspected as a layer
    if isinstance(value, Mapping):  # one entry per key of an observation
        return any(not isinstance(one, Mapping) and _is_moments(one) for one in value.values())
    names = {
        name.lstrip("_").lower()
        for name, one in _fields(value).items()
        if isinstance(one, int | float | np.ndarray | np.generic) or type(one).__name__ == "Tensor"
    }
    return "mean" in names and bool(names & SPREAD) and bool(names & COUNT)


def _fields(one: Any) -> Mapping[str, Any]:
    """Return an object's own attributes without running its code."""
    found = getattr(type(one), "__dict__", {}).get("__slots__", ())
    slots = {name: getattr(one, name, None) for name in ([found] if isinstance(found, str) else found)}
    try:
        return {**slots, **vars(one)}
    except TypeError:
        return slots
