"""Nested spaces and values as flat ones: a leaf stays itself, Dict and Tuple become one dictionary with keys "a/b".

Leaves are Box, Discrete, MultiDiscrete and MultiBinary. A tuple's entries are the keys "0", "1", ... It stands on NumPy
and Gymnasium alone: the workers that step environments import this, and torch would cost each of them seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from operator import getitem
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from ppo_lab.errors import EnvError

LEAVES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
MASK_KEY = "action_mask"

Path = tuple[str | int, ...]  # how to get from a nested value to a leaf: value[path[0]][path[1]]...


class Flattened(spaces.Dict):
    """A Dict of leaves that knows where each was in the space it was made from."""

    def __init__(self, leaves: dict[str, Space], paths: dict[str, Path]) -> None:
        super().__init__(leaves, sort_keys=False)
        self.paths = paths  # {"1/move": (1, "move")}


def flatten_space(space: Space) -> Space:
    """A leaf as it is; Dict and Tuple, however nested, as one Dict of leaves in the order in which the space has them.

    What is flat stays as it is. Raises EnvError, naming the key, for a space that is no leaf (Text, Graph, Sequence,
    OneOf, ...), for one that holds nothing, and for a key that is no text, is empty, or contains "/" in a nested space.
    """
    if isinstance(space, (*LEAVES, Flattened)):
        return space
    found = list(_walk(space, "", ()))
    return Flattened({key: leaf for key, _, leaf in found}, {key: path for key, path, _ in found})


def leaf_spaces(space: Space) -> dict[str, Space]:
    """The leaves of a flat space by key; one leaf alone has the key ""."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def leaf_paths(space: Space) -> dict[str, Path]:
    """The flat keys of a nested space, and where in its values each leaf is; {"": ()} for a leaf."""
    return {"": ()} if isinstance(space, LEAVES) else {key: path for key, path, _ in _walk(space, "", ())}


def origin(space: Space) -> dict[str, Path]:
    """The same for the space that a flat one was made from."""
    return space.paths if isinstance(space, Flattened) else leaf_paths(space)


def flatten_value(space: Space, value: Any) -> Any:
    """A value of the nested space, or a batch of them in arrays: the leaf itself, or {"a/b": leaf}.

    Raises EnvError if the value has not the structure of the space.
    """
    return value if isinstance(space, LEAVES) else follow(leaf_paths(space), value)


def follow(paths: dict[str, Path], value: Any) -> dict[str, Any]:
    """{key: the leaf at its path}. Raises EnvError naming the key that the value does not have."""
    flat = {}
    for key, path in paths.items():
        try:
            flat[key] = reduce(getitem, path, value)
        except (LookupError, TypeError) as error:
            raise EnvError(f"a value without {key!r}, which its space declares") from error
    return flat


def unflatten_value(space: Space, flat: Any) -> Any:
    """The inverse of `flatten_value`."""
    return nest(leaf_paths(space), flat)


def nest(paths: dict[str, Path], flat: Any) -> Any:
    """The inverse of `follow`; for {"": ()} the one leaf as it is."""
    key, path = next(iter(paths.items()))
    if not path:
        return flat[key] if key else flat
    groups: dict[str | int, dict[str, Path]] = {}
    for key, (first, *rest) in paths.items():
        groups.setdefault(first, {})[key] = tuple(rest)
    level = {first: nest(below, flat) for first, below in groups.items()}
    return tuple(level.values()) if isinstance(path[0], int) else level


def map_leaves(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """function(leaf, *other leaves) for one leaf, or key by key for flat dictionaries with the same keys."""
    if isinstance(tree, dict):
        return {key: function(leaf, *(other[key] for other in others)) for key, leaf in tree.items()}
    return function(tree, *others)


def parts(tree: Any) -> dict[str, Any]:
    """The leaves of a flat value by key; one leaf alone has the key ""."""
    return tree if isinstance(tree, dict) else {"": tree}


def mask_size(action_space: Space) -> int:
    """How many entries the action mask of a (flat or nested) action space has; 0: nothing of it can be masked.

    Discrete(n): n. MultiDiscrete: the sum of its components' choices. MultiBinary(m): 2 m, "0 is legal" and "1 is
    legal" for each bit. Dict and Tuple: their leaves one after the other; Box has none.
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
    """Smallest and largest value of each component of Discrete and MultiDiscrete, both included; None for others."""
    if isinstance(space, spaces.Discrete):
        return np.asarray(space.start), np.asarray(space.start + space.n - 1)
    if isinstance(space, spaces.MultiDiscrete):
        return np.asarray(space.start), np.asarray(space.start + space.nvec - 1)
    return None


def _walk(space: Space, prefix: str, path: Path) -> Iterator[tuple[str, Path, Space]]:
    """(flat key, path, leaf) of each leaf below a space."""
    if isinstance(space, LEAVES):
        yield prefix, path, space
        return
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        raise EnvError(f"{f'key {prefix!r} has ' if prefix else ''}a space of kind {type(space).__name__}")
    named = isinstance(space, spaces.Dict)
    entries = list(space.spaces.items()) if isinstance(space, spaces.Dict) else list(enumerate(space.spaces))
    if not entries:
        raise EnvError(f"{f'key {prefix!r} has ' if prefix else ''}a {type(space).__name__} space that holds nothing")
    flat = not prefix and all(isinstance(inner, LEAVES) for _, inner in entries)  # is so already: "a/b" is no surprise
    for key, inner in entries:
        if named and (not isinstance(key, str) or not key or ("/" in key and not flat)):
            raise EnvError(f"a nested space with the key {key!r}: keys are texts without '/', and not empty")
        yield from _walk(inner, f"{prefix}/{key}" if prefix else str(key), (*path, key))
