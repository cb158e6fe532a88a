"""The observations of Spaces-v0: one of four targets and some noise, encoded in every kind of space.

The target is two bits, 2 * high + low. Every entry of OBSERVATIONS shows both bits, so that one observation determines
the target. Images and boards show them by the marked quadrant: high is the lower half, low the right half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor

from ppo_lab.envs import Obs

NUM_NOISE = 24  # numbers in [0, 1) that an observation may use


@dataclass(frozen=True)
class Observation:
    """A space, and a deterministic function that encodes N targets (N,) int64 and their noise (N, NUM_NOISE) in it."""

    space: Space
    write: Callable[[Tensor, Tensor], Obs]


def _bits(target: Tensor) -> tuple[Tensor, Tensor]:
    return target // 2, target % 2


def _vector(size: int) -> Observation:
    """Show (3,): high and low as -1 or +1, noise in [-1, 1]."""

    def write(target: Tensor, noise: Tensor) -> Tensor:
        high, low = _bits(target)
        return torch.stack([2.0 * high - 1, 2.0 * low - 1, 2 * noise[:, 0] - 1], dim=1)

    return Observation(spaces.Box(-1.0, 1.0, (3,), np.float32), write)


def _discrete(size: int, start: int = 0) -> Observation:
    """Show the target itself, counted from `start`."""
    return Observation(spaces.Discrete(4, start=start), lambda target, noise: target + start)


def _multidiscrete(size: int, start: tuple[int, int, int] = (0, 0, 0)) -> Observation:
    """Show high (of 2), noise (of 3), low (of 2), each counted from its start."""

    def write(target: Tensor, noise: Tensor) -> Tensor:
        high, low = _bits(target)
        return torch.stack([high + start[0], (3 * noise[:, 0]).long() + start[1], low + start[2]], dim=1)

    return Observation(spaces.MultiDiscrete([2, 3, 2], start=list(start)), write)


def _multibinary(size: int) -> Observation:
    """Show high, noise, low as bits."""

    def write(target: Tensor, noise: Tensor) -> Tensor:
        high, low = _bits(target)
        return torch.stack([high == 1, noise[:, 0] < 0.5, low == 1], dim=1)

    return Observation(spaces.MultiBinary(3), write)


def _paint(high: Tensor, low: Tensor, noise: Tensor, size: int) -> Tensor:
    """Draw (N, size, size) uint8: the quadrant is 155 to 254, the rest 0 to 99, chosen by the noise."""
    half = torch.arange(size, device=noise.device) >= size // 2
    inside = (half == (high == 1)[:, None])[:, :, None] & (half == (low == 1)[:, None])[:, None, :]
    dark, bright = 100 * noise[:, 0, None, None], 155 + 100 * noise[:, 1, None, None]
    return torch.where(inside, bright, dark).to(torch.uint8)


def _image(size: int, channels: str) -> Observation:
    """Show a uint8 image with channels "last" or "first" (picture, uniform grey, negative); "none": the picture."""

    def write(target: Tensor, noise: Tensor) -> Tensor:
        picture = _paint(*_bits(target), noise, size)  # (N, size, size)
        if channels == "none":
            return picture
        grey = (255 * noise[:, 2, None, None]).to(torch.uint8).expand_as(picture)
        return torch.stack([picture, grey, 255 - picture], dim=-1 if channels == "last" else 1)

    shape = {"last": (size, size, 3), "first": (3, size, size), "none": (size, size)}[channels]
    return Observation(spaces.Box(0, 255, shape, np.uint8), write)


def _board(size: int) -> Observation:
    """Show (2, 4, 4) float32, 0 or 1: one stone somewhere in the quadrant, and random stones on the second plane."""

    def write(target: Tensor, noise: Tensor) -> Tensor:
        high, low = _bits(target)
        row, column = 2 * high + (noise[:, 0] < 0.5), 2 * low + (noise[:, 1] < 0.5)
        stone = torch.arange(16, device=noise.device) == (4 * row + column)[:, None]  # (N, 16)
        return torch.stack([stone, noise[:, 2:18] < 0.3], dim=1).float().view(-1, 2, 4, 4)

    return Observation(spaces.Box(0.0, 1.0, (2, 4, 4), np.float32), write)


def _set(size: int) -> Observation:
    """Show `entities` (5, 3) float32: x, y, marked. The position of the marked one gives the bits: low by x, high by y.

    One to five entities are valid, by `entities_mask` (5,). The invalid rows look like marked entities at random
    positions, so that a network that ignores the mask cannot find the target.
    """

    def write(target: Tensor, noise: Tensor) -> dict[str, Tensor]:
        high, low = _bits(target)
        count = 1 + (5 * noise[:, 0]).long()
        slot = torch.arange(5, device=noise.device)
        marked = slot == (noise[:, 1] * count).long()[:, None]  # (N, 5)
        there = slot < count[:, None]
        place = 2 * noise[:, 2:12].view(-1, 5, 2) - 1  # (N, 5, 2) x, y
        side = 2.0 * torch.stack([low, high], dim=1)[:, None] - 1  # (N, 1, 2)
        place = torch.where(marked[:, :, None], side * (0.2 + 0.8 * place.abs()), place)
        entities = torch.cat([place, (marked | ~there).float()[:, :, None]], dim=2)
        return {"entities": entities, "entities_mask": there}

    entities = spaces.Box(-1.0, 1.0, (5, 3), np.float32)
    return Observation(spaces.Dict({"entities": entities, "entities_mask": spaces.MultiBinary(5)}), write)


def _dict(size: int) -> Observation:
    """Show low in `image`, high in `vector` (2,), noise in `token` (of 5), the target one-hot in `privileged` (4,)."""

    def write(target: Tensor, noise: Tensor) -> dict[str, Tensor]:
        high, low = _bits(target)
        anywhere = (noise[:, 2] < 0.5).long()
        return {
            "image": _paint(anywhere, low, noise, size)[:, :, :, None],
            "privileged": (torch.arange(4, device=noise.device) == target[:, None]).float(),
            "token": (5 * noise[:, 3]).long(),
            "vector": torch.stack([2.0 * high - 1, 2 * noise[:, 4] - 1], dim=1),
        }

    parts: dict[str, Space] = {
        "image": spaces.Box(0, 255, (size, size, 1), np.uint8),
        "privileged": spaces.Box(0.0, 1.0, (4,), np.float32),
        "token": spaces.Discrete(5),
        "vector": spaces.Box(-1.0, 1.0, (2,), np.float32),
    }
    return Observation(spaces.Dict(parts), write)


OBSERVATIONS: dict[str, Callable[[int], Observation]] = {  # name -> (side of its images) -> observation
    "vector": _vector,
    "discrete": _discrete,
    "discrete_start": lambda size: _discrete(size, start=-1),
    "multidiscrete": _multidiscrete,
    "multidiscrete_start": lambda size: _multidiscrete(size, start=(3, 0, -2)),
    "multibinary": _multibinary,
    "image_hwc": lambda size: _image(size, "last"),
    "image_chw": lambda size: _image(size, "first"),
    "image_hw": lambda size: _image(size, "none"),
    "board": _board,
    "set": _set,
    "dict": _dict,
}
