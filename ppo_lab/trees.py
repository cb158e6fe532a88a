"""A tensor or a flat dictionary of tensors, handled alike: observations, actions and memory come as either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from torch import Tensor

Tree = Tensor | dict[str, Tensor]
T = TypeVar("T", bound=Tree)


def apply(function: Callable[..., Any], tree: T, *others: T) -> T:
    """Apply `function` to a tensor and those of `others`, or key by key to dictionaries with the same keys."""
    if isinstance(tree, dict):
        found: Any = {key: function(leaf, *(_leaf(each, key) for each in others)) for key, leaf in tree.items()}
    else:
        found = function(tree, *others)
    return cast(T, found)


def _leaf(tree: Tree, key: str) -> Tensor:
    assert isinstance(tree, dict)
    return tree[key]


def leaves(tree: Tree | None) -> list[Tensor]:
    """Return the tensors in it, in the order of the keys; [] for None."""
    if tree is None:
        return []
    return list(tree.values()) if isinstance(tree, dict) else [tree]


def rows_of(tree: T) -> list[T]:
    """Return tree[0], tree[1], ... as views of the same memory."""
    if isinstance(tree, dict):
        views = {key: tensor.unbind() for key, tensor in tree.items()}
        return [cast(T, dict(zip(views, row, strict=True))) for row in zip(*views.values(), strict=True)]
    return cast(list[T], list(tree.unbind()))


def copy(target: Tree, source: Tree) -> None:
    """Copy the numbers of `source` into the memory of `target`."""
    if isinstance(target, dict):
        for key, tensor in target.items():
            tensor.copy_(_leaf(source, key))
    else:
        assert isinstance(source, Tensor)
        target.copy_(source)


def at(tree: T, index: Any) -> T:
    """Return tree[index] of every tensor: an integer, a slice, a mask or a tensor of integers."""
    return apply(lambda tensor: tensor[index], tree)


def flattened(value: Any) -> Any:
    """Flatten nested dictionaries and tuples to one dictionary with keys "a/b" and "0", "1"; anything else stays as
    it is.
    """
    if not isinstance(value, Mapping | tuple):
        return value
    flat = {}
    for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
        below = flattened(part)
        flat.update({f"{key}/{k}": leaf for k, leaf in below.items()} if isinstance(below, dict) else {str(key): below})
    return flat
