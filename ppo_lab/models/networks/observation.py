"""Observation -> what a body sees: float tensors, normalised where asked. Looks at spaces; bodies only see shapes.

`LeafInput` reads one space, `DictInput` a flat Dict of them key by key; a tensor gives a tensor, a dict a dict.
A model owns one of them, so that actor and critic share one set of statistics; what each of the two sees of its
result is `visible`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, final

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from ppo_lab.envs.spaces import MASK_KEY, Shaped, brightest, is_picture, kind_of, leaf_spaces
from ppo_lab.errors import ConfigError, EnvError
from ppo_lab.models.networks.normalization import ObsNormalizer
from ppo_lab.trees import Tree

FLOATS = (torch.float32, torch.float64)


@final
class LeafInput(nn.Module):
    """One observation space as floats: (*batch, *obs) -> (*batch, n), or (*batch, *obs) where the shape is kept.

    Box               as it is, normalised if asked, element by element; with integers the statistics are floats too.
    Box uint8, rank 2 or more: a picture, divided by the highest value of its space (255) and never normalised.
    Discrete, MultiDiscrete    one-hot, component by component, counted from `start`; a number outside gives zeros.
    MultiBinary, Box of bool   0.0 and 1.0.

    keeps: the kinds whose shape is kept. "image": a Box of rank 3 or more, or of integers and rank 2 (H, W); not
    normalised. "set": a Box of floats and rank 2, n entities of f features each; normalised feature by feature, all
    entities alike, so that their order stays without meaning.
    """

    values: Tensor  # (n) the number that turns column i of a one-hot on
    component: Tensor  # (n) the component it belongs to

    def __init__(self, space: Space, normalize: bool, clip: float, keeps: Collection[Shaped] = ()) -> None:
        super().__init__()
        self.obs_shape = tuple(space.shape or ())
        self.kind = kind_of(space)
        self.kept = self.kind in keeps
        self.one_hot = isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            counts, start = _counts(space)
            columns = [(i, first + j) for i, (n, first) in enumerate(zip(counts, start, strict=True)) for j in range(n)]
            component, values = torch.tensor(columns).unbind(-1)
            self.register_buffer("component", component, persistent=False)  # follow from the space: not in checkpoints
            self.register_buffer("values", values, persistent=False)
            shape: tuple[int, ...] = (len(columns),)
        elif isinstance(space, spaces.Box | spaces.MultiBinary):
            shape = self.obs_shape if self.kept else (math.prod(self.obs_shape),)
        else:
            raise EnvError(
                f"observation space {space} is not supported; supported: Box, Discrete, MultiDiscrete, MultiBinary, "
                "and Dict or Tuple of them"
            )
        self.picture = is_picture(space)
        self.highest = brightest(space)
        self.reshaped = shape != self.obs_shape
        self.unchanged = not (self.one_hot or self.picture or self.reshaped)  # but for the normaliser
        self.space: Space = _floats(shape, self.picture)
        numbers = isinstance(space, spaces.Box) and space.dtype != np.bool_ and not self.picture
        kept_image = self.kept and self.kind == "image"
        self.normalizer = ObsNormalizer(shape[-1], clip) if normalize and numbers and not kept_image else None

    def forward(self, obs: Tensor) -> Tensor:
        """Convert (*batch, *obs) to (*batch, *space.shape) float32 (float64 stays float64)."""
        inputs = self.read(obs)
        return inputs if self.normalizer is None else self.normalizer(inputs)

    def read(self, obs: Tensor) -> Tensor:
        """Convert without normalising."""
        if self.one_hot:
            return self._one_hot(obs)
        if self.picture:
            obs = obs / self.highest  # on its device: until here it stays uint8
        if self.reshaped:
            obs = obs.reshape(*obs.shape[: obs.dim() - len(self.obs_shape)], *(self.space.shape or ()))
        return obs if obs.dtype in FLOATS else obs.to(torch.get_default_dtype())

    def _one_hot(self, obs: Tensor) -> Tensor:
        rank = len(self.obs_shape)
        column = obs.flatten(obs.dim() - rank) if rank else obs.unsqueeze(-1)  # (*batch, components)
        # comparing is two operations for any number of components, and no look at the numbers from the host
        if column.shape[-1] > 1:
            column = column.index_select(-1, self.component)  # (*batch, n)
        return (column == self.values).to(torch.get_default_dtype())

    def refresh(self, obs: Tree, present: Tensor | None = None) -> None:
        """Take the observations (M, *obs) the policy saw into the running statistics, for the next rollout.

        present: (M, n) which entities of a set are there; what stands in the place of the others is not counted.
        """
        if self.normalizer is not None:
            assert isinstance(obs, Tensor)
            rows = self.read(obs)
            if self.kept:  # a set (M, n, f): every entity is a row
                rows = rows.flatten(0, 1) if present is None else rows[present != 0]
            self.normalizer.refresh(rows)

    def batch_shape(self, obs: Any, optional: Collection[str] = ()) -> tuple[int, ...]:
        """Return the leading dimensions of obs (*batch, *obs), tensor or array: () for one observation, (N,) for N.

        Raises ConfigError if the shape does not end like that of the space.
        """
        return _batch_shape("", obs, self.obs_shape)


@final
class DictInput(nn.Module):
    """A flat Dict of spaces, key by key, in the order of the space: {k: (*batch, *obs)} -> {k: (*batch, *k.shape)}.

    `action_mask` is left out. Of a set `k` with n entities, a key `k_mask` (n) says which are there; it comes out as
    bool.
    """

    def __init__(self, space: Space, normalize: bool, clip: float, keeps: Collection[Shaped] = ()) -> None:
        super().__init__()
        self.shapes = {key: tuple(leaf.shape or ()) for key, leaf in leaf_spaces(space).items()}
        leaves = {key: leaf for key, leaf in leaf_spaces(space).items() if key != MASK_KEY}
        if not leaves:
            raise EnvError(f"observation space {space} has nothing for a network to see")
        self.masks = {key: f"{key}_mask" for key in leaves if kind_of(leaves[key]) == "set" and "set" in keeps}
        self.masks = {key: mask for key, mask in self.masks.items() if mask in leaves}
        for key, mask in self.masks.items():
            if self.shapes[mask] != self.shapes[key][:1]:
                raise EnvError(
                    f"{mask!r} says which entities of {key!r} are there: its shape is {self.shapes[key][:1]}, "
                    f"got {self.shapes[mask]}"
                )
        self.keys = tuple(key for key in leaves if key not in self.masks.values())
        # by number: a key may be called "type" or "a.b", a module may not
        self.inputs = nn.ModuleList(LeafInput(leaves[key], normalize, clip, keeps) for key in self.keys)
        seen: dict[str, Space] = {key: leaf.space for key, leaf in self.items()}
        seen |= {mask: spaces.MultiBinary(self.shapes[mask]) for mask in self.masks.values()}
        self.space: Space = spaces.Dict(seen)

    def items(self) -> list[tuple[str, LeafInput]]:
        """Return every key that is read, with its reader."""
        return [(key, leaf) for key, leaf in zip(self.keys, self.inputs, strict=True) if isinstance(leaf, LeafInput)]

    def forward(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert {key: (*batch, *obs)} to {key: (*batch, *shape)}: floats, and the masks of sets as bool."""
        inputs = {key: leaf(obs[key]) for key, leaf in zip(self.keys, self.inputs, strict=True) if key in obs}
        inputs |= {mask: obs[mask] != 0 for mask in self.masks.values() if mask in obs}
        return inputs

    def refresh(self, obs: Tree) -> None:
        """Take the observations {key: (M, *obs)} the policy saw into the running statistics, for the next rollout."""
        assert isinstance(obs, dict)
        for key, leaf in self.items():
            leaf.refresh(obs[key], obs[self.masks[key]] if key in self.masks else None)

    def batch_shape(self, obs: Any, optional: Collection[str] = ()) -> tuple[int, ...]:
        """Return the leading dimensions of obs {key: (*batch, *obs)}: () for one observation, (N,) for N.

        optional: keys that may be missing. Raises ConfigError naming a key that is missing or whose shape does not end
        like that of its space.
        """
        needed = self.shapes.keys() - set(optional)
        if not isinstance(obs, Mapping) or not needed <= obs.keys():
            given = ", ".join(obs) if isinstance(obs, Mapping) else type(obs).__name__
            keys = ", ".join(key for key in self.shapes if key in needed)
            raise ConfigError(f"an observation has the keys {keys}; got {given}")
        batches = {key: _batch_shape(key, obs[key], shape) for key, shape in self.shapes.items() if key in obs}
        first, batch = next(iter(batches.items()))
        for key, other in batches.items():
            if other != batch:
                raise ConfigError(f"observation {key!r} comes {other} times, {first!r} {batch} times")
        return batch


ObsInput = LeafInput | DictInput


def set_masks(space: Space) -> dict[str, str]:
    """Set -> the key of its mask, in what a `DictInput` yields."""
    leaves = leaf_spaces(space)
    return {key: f"{key}_mask" for key in leaves if isinstance(leaves.get(f"{key}_mask"), spaces.MultiBinary)}


def visible(space: Space, hidden: Collection[str]) -> Space:
    """Return the `space` that an ObsInput yields without the keys in `hidden`; `k` takes `k_mask` along.

    Raises ConfigError for a key that is not there, and if nothing is left.
    """
    if not hidden:
        return space
    leaves = leaf_spaces(space)
    keys = leaves.keys() - set(set_masks(space).values())
    for key in hidden:
        if key not in keys or not key:
            known = ", ".join(filter(None, sorted(keys))) or "none, it is a plain one"
            raise ConfigError(f"model.privileged: no key {key!r} in the observation; keys: {known}")
    gone = {*hidden, *(f"{key}_mask" for key in hidden)}
    if gone >= leaves.keys():
        raise ConfigError(f"model.privileged: {', '.join(hidden)} is all there is; the actor needs something to see")
    return spaces.Dict({key: leaf for key, leaf in leaves.items() if key not in gone})


def _counts(space: spaces.Discrete | spaces.MultiDiscrete) -> tuple[list[int], list[int]]:
    """Return how many values each component has and which is the first."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)], [int(space.start)]
    return space.nvec.ravel().tolist(), space.start.ravel().tolist()


def _floats(shape: tuple[int, ...], picture: bool) -> spaces.Box:
    low, high = (0.0, 1.0) if picture else (-np.inf, np.inf)
    return spaces.Box(low, high, shape, np.float32)


def _batch_shape(key: str, obs: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    given = tuple(np.shape(obs))
    split = len(given) - len(shape)
    if split < 0 or given[split:] != shape:
        raise ConfigError(f"{f'{key!r}: ' if key else ''}one observation has shape {shape}, got {given}")
    return given[:split]
