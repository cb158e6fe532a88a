"""Flatten nested spaces and values: a leaf stays as it is, Dict and Tuple become one dictionary with keys "a/b".

Leaves are Box, Discrete, MultiDiscrete and MultiBinary. A tuple's entries get the keys "0", "1", ... Imports NumPy and
Gymnasium only: every worker process imports this module, and importing torch would cost each of them seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from operator import getitem
from typing import Any, Literal

import numpy as np
from gymnasium import Space, spaces

from ppo_lab.errors import EnvError

LEAVES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
MASK_KEY = "action_mask"

Shaped = Literal["image", "set"]  # observations that may reach a body in their own shape; all others are vectors

Path = tuple[str | int, ...]  # how to get from a nested value to a leaf: value[path[0]][path[1]]...


class Flattened(spaces.Dict):
    """A Dict of leaves that records where each leaf was in the original space."""

    def __init__(self, leaves: dict[str, Space], paths: dict[str, Path]) -> None:
        super().__init__(leaves, sort_keys=False)
        self.paths = paths  # {"1/move": (1, "move")}


def flatten_space(space: Space) -> Space:
    """Return a leaf unchanged, and a nested Dict or Tuple as one Dict of leaves in the order of the space.

    A flat space is returned unchanged. Raises EnvError, naming the key, for an unsupported space (Text, Graph,
    Sequence, OneOf, ...), for an empty one, and for a key that is not a string, is empty, or contains "/" in a nested
    space.
    """
    if isinstance(space, (*LEAVES, Flattened)):
        return space
    found = list(_walk(space, "", ()))
    return Flattened({key: leaf for key, _, leaf in found}, {key: path for key, path, _ in found})


def leaf_spaces(space: Space) -> dict[str, Space]:
    """Return the leaves of a flat space by key; a single leaf has the key ""."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def leaf_paths(space: Space) -> dict[str, Path]:
    """Return the flat keys of a nested space with the path to each leaf in its values; {"": ()} for a leaf."""
    return {"": ()} if isinstance(space, LEAVES) else {key: path for key, path, _ in _walk(space, "", ())}


def origin(space: Space) -> dict[str, Path]:
    """Return the `leaf_paths` of the space that a flat space was made from."""
    return space.paths if isinstance(space, Flattened) else leaf_paths(space)


def flatten_value(space: Space, value: Any) -> Any:
    """Flatten a value of the nested space, or a batch of values in arrays: the leaf itself, or {"a/b": leaf}.

    Raises EnvError if the value does not have the structure of the space.
    """
    return value if isinstance(space, LEAVES) else follow(leaf_paths(space), value)


def follow(paths: dict[str, Path], value: Any) -> dict[str, Any]:
    """Return {key: the leaf at its path}. Raises EnvError naming the key that is missing from the value."""
    flat = {}
    for key, path in paths.items():
        try:
            flat[key] = reduce(getitem, path, value)
        except (LookupError, TypeError) as error:
            raise EnvError(f"the value has no {key!r}, which its space declares") from error
    return flat


def unflatten_value(space: Space, flat: Any) -> Any:
    """Invert `flatten_value`."""
    return nest(leaf_paths(space), flat)


def nest(paths: dict[str, Path], flat: Any) -> Any:
    """Invert `follow`; for {"": ()} return the single leaf unchanged."""
    key, path = next(iter(paths.items()))
    if not path:
        return flat[key] if key else flat
    groups: dict[str | int, dict[str, Path]] = {}
    for key, (first, *rest) in paths.items():
        groups.setdefault(first, {})[key] = tuple(rest)
    level = {first: nest(below, flat) for first, below in groups.items()}
    return tuple(level.values()) if isinstance(path[0], int) else level


def map_leaves(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply function(leaf, *other leaves) to a single leaf, or key by key to flat dictionaries with the same keys."""
    if isinstance(tree, dict):
        return {key: function(leaf, *(other[key] for other in others)) for key, leaf in tree.items()}
    return function(tree, *others)


def parts(tree: Any) -> dict[str, Any]:
    """Return the leaves of a flat value by key; a single leaf has the key ""."""
    return tree if isinstance(tree, dict) else {"": tree}


def mask_size(action_space: Space) -> int:
    """Return the number of entries in the action mask of a (flat or nested) action space; 0: it cannot be masked.

    Discrete(n): n. MultiDiscrete: the sum of its components' choices. MultiBinary(m): 2 m, "0 is legal" and "1 is
    legal" for each bit. Dict and Tuple: their leaves concatenated. Box: 0.
    """
    if isinstance(action_space, spaces.Discrete):
        return int(action_space.n)
    if isinstance(action_space, spaces.MultiDiscrete):
        return int(action_space.nvec.sum())
    if isinstance(action_space, spaces.MultiBinary):
        return 2 * int(np.prod(action_space.shape))
    if isinstance(action_space, spaces.Box):
        return 0
    return sum(mask_size(leaf) for _, _, leaf in _walk(action_space, "", ()))


def bounds(space: Space) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the inclusive bounds (low, high) of each component of Discrete and MultiDiscrete; None for others."""
    if isinstance(space, spaces.Discrete):
        return np.asarray(space.start), np.asarray(space.start + space.n - 1)
    if isinstance(space, spaces.MultiDiscrete):
        return np.asarray(space.start), np.asarray(space.start + space.nvec - 1)
    return None


def _walk(space: Space, prefix: str, path: Path) -> Iterator[tuple[str, Path, Space]]:
    """Yield (flat key, path, leaf) for each leaf of a space."""
    if isinstance(space, LEAVES):
        yield prefix, path, space
        return
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        raise EnvError(f"{f'key {prefix!r} has ' if prefix else ''}a space of kind {type(space).__name__}")
    named = isinstance(space, spaces.Dict)
    entries = list(space.spaces.items()) if isinstance(space, spaces.Dict) else list(enumerate(space.spaces))
    if not entries:
        raise EnvError(f"{f'key {prefix!r} has ' if prefix else ''}an empty {type(space).__name__} space")
    flat = not prefix and all(isinstance(inner, LEAVES) for _, inner in entries)  # already flat: "a/b" is allowed
    for key, inner in entries:
        if named and (not isinstance(key, str) or not key or ("/" in key and not flat)):
            raise EnvError(f"a nested space with the key {key!r}: keys must be non-empty strings without '/'")
        yield from _walk(inner, f"{prefix}/{key}" if prefix else str(key), (*path, key))


def is_picture(space: Space) -> bool:
    """Return whether a space holds images of bytes: uint8 in two or more dimensions."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) >= 2


def brightest(space: Space) -> float:
    """Return the divisor of an image's values, 1 for any other space. No other bound of an observation is used."""
    return float(space.high.max()) or 1.0 if isinstance(space, spaces.Box) and is_picture(space) else 1.0


def kind_of(space: Space) -> Shaped | None:
    """Return how a body that keeps shapes treats a space: as an "image", as a "set", or None: as a vector."""
    if not isinstance(space, spaces.Box) or len(space.shape) < 2:
        return None
    return "set" if len(space.shape) == 2 and np.issubdtype(space.dtype, np.floating) else "image"
