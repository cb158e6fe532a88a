"""Spaces as plain values, so that a policy can be loaded without its environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space, spaces

from ppo_lab.errors import EnvError


def describe_space(space: Space) -> dict[str, Any]:
    """Box and Discrete as what JSON can hold."""
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.Box):
        low, high = space.low.ravel().tolist(), space.high.ravel().tolist()
        return {"kind": "Box", "shape": list(space.shape), "dtype": str(space.dtype), "low": low, "high": high}
    raise EnvError(f"space {space} is not supported; supported: Box and Discrete")


def make_space(text: dict[str, Any]) -> Space:
    """The space that `describe_space` described."""
    if text["kind"] == "Discrete":
        return spaces.Discrete(text["n"], start=text["start"])
    low, high = (np.array(text[end], dtype=text["dtype"]).reshape(text["shape"]) for end in ("low", "high"))
    return spaces.Box(low, high, dtype=low.dtype.type)
