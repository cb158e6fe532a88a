"""What our environments save and load: their memory by name, and the state of their random numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ppo_lab.errors import EnvError


def save(memory: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Return a copy of every tensor of `memory`, and the generator's state under the key "generator"."""
    return {**{key: tensor.clone() for key, tensor in memory.items()}, "generator": generator.get_state()}


def load(name: str, memory: Mapping[str, Tensor], generator: torch.Generator, state: Mapping[str, Tensor]) -> None:
    """Write what `save` returned back in place. Raises EnvError, which names the environment, where it does not fit."""
    check_fit(name, state, save(memory, generator))
    for key, tensor in memory.items():
        tensor.copy_(state[key])
    generator.set_state(state["generator"].cpu())


def check_fit(name: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise EnvError unless `state` has every key of `own`, with its shape and dtype."""
    for key, want in own.items():
        got = state.get(key)
        if got is None or got.shape != want.shape or got.dtype != want.dtype:
            there = "is missing" if got is None else f"is {tuple(got.shape)} {got.dtype}"
            raise EnvError(f"{name} state: {key!r} {there}; this one needs {tuple(want.shape)} {want.dtype}")
