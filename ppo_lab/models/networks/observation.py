"""Conversion of observations to the inputs of a body: float tensors, normalised if configured.

`LeafInput` reads one space, `DictInput` a flat Dict of spaces key by key. A tensor gives a tensor, a dict gives a dict.
Spaces are handled here; bodies only know shapes. A model has one such input module, so that actor and critic share
their statistics. `visible` selects what each of the two gets.
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
    """Input for one observation space: (*batch, *obs) -> floats (*batch, n), or (*batch, *obs) if the shape is kept.

    Box               unchanged, or normalised element by element if configured; integers become floats.
    Box uint8, rank 2 or more: an image, divided by the highest value of its space (255) and never normalised.
    Discrete, MultiDiscrete    one-hot, component by component, counted from `start`; a number outside gives zeros.
    MultiBinary, Box of bool   0.0 and 1.0.

    keeps: the kinds whose shape is kept. "image": a Box of rank 3 or more, or of integers and rank 2 (H, W); not
    normalised. "set": a Box of floats and rank 2, n entities of f features each; normalised feature by feature, with
    the same statistics for all entities, so that their order has no effect.
    """

    values: Tensor  # (n) the value for which column i of the one-hot is 1
    component: Tensor  # (n) the component that column i belongs to

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
            self.register_buffer("component", component, persistent=False)  # from the space: not in checkpoints
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
        self.unchanged = not (self.one_hot or self.picture or self.reshaped)  # except by the normaliser
        self.space: Space = _floats(shape, self.picture)
        numbers = isinstance(space, spaces.Box) and space.dtype != np.bool_ and not self.picture
        kept_image = self.kept and self.kind == "image"
        self.normalizer = ObsNormalizer(shape[-1], clip) if normalize and numbers and not kept_image else None

    def forward(self, obs: Tensor) -> Tensor:
        """Convert (*batch, *obs) to (*batch, *space.shape) float32 (float64 stays float64)."""
        inputs = self.read(obs)
        return inputs if self.normalizer is None else self.normalizer(inputs)

    def read(self, obs: Tensor) -> Tensor:
        """Convert (*batch, *obs) to (*batch, *space.shape) floats, without normalising."""
        if self.one_hot:
            return self._one_hot(obs)
        if self.picture:
            obs = obs / self.highest  # on the device: the image was sent as uint8
        if self.reshaped:
            obs = obs.reshape(*obs.shape[: obs.dim() - len(self.obs_shape)], *(self.space.shape or ()))
        return obs if obs.dtype in FLOATS else obs.to(torch.get_default_dtype())

    def _one_hot(self, obs: Tensor) -> Tensor:
        rank = len(self.obs_shape)
        column = obs.flatten(obs.dim() - rank) if rank else obs.unsqueeze(-1)  # (*batch, components)
        # a comparison takes two operations for any number of components, and the host does not wait for the values
        if column.shape[-1] > 1:
            column = column.index_select(-1, self.component)  # (*batch, n)
        return (column == self.values).to(torch.get_default_dtype())

    def refresh(self, obs: Tree, present: Tensor | None = None) -> None:
        """Add the observations (M, *obs) that the policy saw to the running statistics, for the next rollout.

        present: (M, n) which entities of a set are present; the others are not counted.
        """
        if self.normalizer is not None:
            assert isinstance(obs, Tensor)
            rows = self.read(obs)
            if self.kept:  # a set (M, n, f): every entity is a row
                rows = rows.flatten(0, 1) if present is None else rows[present != 0]
            self.normalizer.refresh(rows)

    def batch_shape(self, obs: Any, optional: Collection[str] = ()) -> tuple[int, ...]:
        """Return the leading dimensions of obs (*batch, *obs), tensor or array: () for one observation, (N,) for N.

        Raises ConfigError if the last dimensions are not those of the space.
        """
        return _batch_shape("", obs, self.obs_shape)


@final
class DictInput(nn.Module):
    """Input for a flat Dict of spaces, in the order of the space: {k: (*batch, *obs)} -> {k: (*batch, *shape of k)}.

    `action_mask` is left out. For a set `k` with n entities, a key `k_mask` (n) says which are present; it is converted
    to bool.
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
                    f"{mask!r} says which entities of {key!r} are present: its shape must be {self.shapes[key][:1]}, "
                    f"got {self.shapes[mask]}"
                )
        self.keys = tuple(key for key in leaves if key not in self.masks.values())
        # a list: a key may be called "type" or "a.b", a module may not
        self.inputs = nn.ModuleList(LeafInput(leaves[key], normalize, clip, keeps) for key in self.keys)
        seen: dict[str, Space] = {key: leaf.space for key, leaf in self.items()}
        seen |= {mask: spaces.MultiBinary(self.shapes[mask]) for mask in self.masks.values()}
        self.space: Space = spaces.Dict(seen)

    def items(self) -> list[tuple[str, LeafInput]]:
        """Return every key that is read, with its `LeafInput`."""
        return [(key, leaf) for key, leaf in zip(self.keys, self.inputs, strict=True) if isinstance(leaf, LeafInput)]

    def forward(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert {key: (*batch, *obs)} to {key: (*batch, *shape)}: floats, and the masks of sets as bool."""
        inputs = {key: leaf(obs[key]) for key, leaf in zip(self.keys, self.inputs, strict=True) if key in obs}
        inputs |= {mask: obs[mask] != 0 for mask in self.masks.values() if mask in obs}
        return inputs

    def refresh(self, obs: Tree) -> None:
        """Add the observations {key: (M, *obs)} that the policy saw to the running statistics, for the next rollout."""
        assert isinstance(obs, dict)
        for key, leaf in self.items():
            leaf.refresh(obs[key], obs[self.masks[key]] if key in self.masks else None)

    def batch_shape(self, obs: Any, optional: Collection[str] = ()) -> tuple[int, ...]:
        """Return the leading dimensions of obs {key: (*batch, *obs)}: () for one observation, (N,) for N.

        optional: keys that may be missing. Raises ConfigError that names the key if one is missing, if its last
        dimensions are not those of its space, or if its leading dimensions differ from those of another key.
        """
        needed = self.shapes.keys() - set(optional)
        if not isinstance(obs, Mapping) or not needed <= obs.keys():
            given = ", ".join(obs) if isinstance(obs, Mapping) else type(obs).__name__
            keys = ", ".join(key for key in self.shapes if key in needed)
            raise ConfigError(f"an observation needs the keys {keys}; got {given}")
        batches = {key: _batch_shape(key, obs[key], shape) for key, shape in self.shapes.items() if key in obs}
        first, batch = next(iter(batches.items()))
        for key, other in batches.items():
            if other != batch:
                raise ConfigError(f"observation {key!r} has leading dimensions {other}, but {first!r} has {batch}")
        return batch


ObsInput = LeafInput | DictInput


def set_masks(space: Space) -> dict[str, str]:
    """Return the mask of each set, {key: key of its mask}, in the `space` of a `DictInput`."""
    leaves = leaf_spaces(space)
    return {key: f"{key}_mask" for key in leaves if isinstance(leaves.get(f"{key}_mask"), spaces.MultiBinary)}


def visible(space: Space, hidden: Collection[str]) -> Space:
    """Return the `space` of an ObsInput without the keys in `hidden`; hiding `k` hides `k_mask` as well.

    Raises ConfigError for an unknown key, and if no key is left.
    """
    if not hidden:
        return space
    leaves = leaf_spaces(space)
    keys = leaves.keys() - set(set_masks(space).values())
    for key in hidden:
        if key not in keys or not key:
            known = ", ".join(filter(None, sorted(keys))) or "none, it is not a dictionary"
            raise ConfigError(f"model.privileged: no key {key!r} in the observation; keys: {known}")
    gone = {*hidden, *(f"{key}_mask" for key in hidden)}
    if gone >= leaves.keys():
        raise ConfigError(
            f"model.privileged: {', '.join(hidden)}: these are all the keys; leave at least one for the actor"
        )
    return spaces.Dict({key: leaf for key, leaf in leaves.items() if key not in gone})


def _counts(space: spaces.Discrete | spaces.MultiDiscrete) -> tuple[list[int], list[int]]:
    """Return the number of values of each component, and the first value of each."""
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
