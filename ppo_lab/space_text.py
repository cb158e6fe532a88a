"""Spaces as plain values, so that a policy can be loaded without its environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space, spaces

from ppo_lab.errors import EnvError

LONG = 64  # bounds; up to here they are all written down


def describe_space(space: Space) -> dict[str, Any]:
    """A flat space (Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of these) as what JSON can hold.

    Raises EnvError for any other.
    """
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, spaces.Box):
        ends = {end: _ends(getattr(space, end)) for end in ("low", "high")}
        return {"kind": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **ends}
    if isinstance(space, spaces.Dict):
        keys = {key: describe_space(inner) for key, inner in space.spaces.items()}
        return {"kind": "Dict", "spaces": keys, "order": list(keys)}  # JSON writers may sort keys
    raise EnvError(f"space {space} is not supported; supported: Box, Discrete, MultiDiscrete, MultiBinary and Dict")


def make_space(text: dict[str, Any]) -> Space:
    """The space that `describe_space` described."""
    kind = text["kind"]
    if kind == "Discrete":
        return spaces.Discrete(text["n"], start=text["start"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.array(text["nvec"], np.int64), start=np.array(text["start"], np.int64))
    if kind == "MultiBinary":
        return spaces.MultiBinary(text["shape"][0] if len(text["shape"]) == 1 else text["shape"])
    if kind == "Dict":
        return spaces.Dict({key: make_space(text["spaces"][key]) for key in text["order"]}, sort_keys=False)
    shape, dtype = tuple(text["shape"]), np.dtype(text["dtype"])
    low, high = (np.broadcast_to(np.array(text[end], dtype).reshape(_fits(text[end], shape)), shape).copy()
                 for end in ("low", "high"))  # fmt: skip
    return spaces.Box(low, high, dtype=low.dtype.type)


def _ends(values: np.ndarray) -> Any:
    """The bounds of a Box as a flat list, or as one number where an image has thousands that are all the same."""
    flat = values.ravel()
    same = values.size > LONG and (flat == flat[0]).all()
    return flat[0].item() if same else flat.tolist()


def _fits(ends: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if isinstance(ends, list) else ()
