"""A tensor or a flat dictionary of tensors, handled alike: observations, actions and memory come as either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

Tree = Tensor | dict[str, Tensor]
T = TypeVar("T", Tensor, dict[str, Tensor], Tree)


def apply(function: Callable[..., Tensor], tree: T, *others: T) -> T:
    """function(tensor, *other tensors) for a tensor, or key by key for dictionaries with the same keys."""
    if isinstance(tree, dict):
        return {key: function(tensor, *(other[key] for other in others)) for key, tensor in tree.items()}
    return function(tree, *others)


def leaves(tree: Tree | None) -> list[Tensor]:
    """The tensors in it, in the order of the keys; none in None."""
    if tree is None:
        return []
    return list(tree.values()) if isinstance(tree, dict) else [tree]


def assign(target: Tree, index: int, source: Tree) -> None:
    """target[index] = source, in place."""
    if isinstance(target, dict):
        assert isinstance(source, dict)
        for key, tensor in target.items():
            tensor[index] = source[key]
    else:
        target[index] = source


def at(tree: T, index: Any) -> T:
    """tree[index] of every tensor: an integer, a slice, a mask or a tensor of integers."""
    return apply(lambda tensor: tensor[index], tree)


def flattened(value: Any) -> Any:
    """Nested dictionaries and tuples as one flat dictionary with keys "a/b" and "0", "1"; anything else as it is."""
    if not isinstance(value, Mapping | tuple):
        return value
    flat = {}
    for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
        below = flattened(part)
        flat.update({f"{key}/{k}": leaf for k, leaf in below.items()} if isinstance(below, dict) else {str(key): below})
    return flat


def nested(flat: Any) -> Any:
    """The inverse of `flattened`: a level whose keys are "0", "1", ... becomes a tuple."""
    if not isinstance(flat, dict):
        return flat
    groups: dict[str, Any] = {}
    for key, leaf in flat.items():
        first, _, rest = key.partition("/")
        if rest:
            groups.setdefault(first, {})[rest] = leaf
        else:
            groups[first] = leaf
    levels = {key: nested(part) for key, part in groups.items()}
    return tuple(levels.values()) if list(levels) == [str(i) for i in range(len(levels))] else levels
