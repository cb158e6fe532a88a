"""The trunk of a body: an encoder for each key of the inputs, their features concatenated, then linear layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from gymnasium import Space
from torch import Tensor, nn

from ppo_lab.config import ModelConfig
from ppo_lab.envs.spaces import leaf_spaces
from ppo_lab.models.networks.mlp import MLP, width
from ppo_lab.models.networks.observation import set_masks
from ppo_lab.trees import Tree

Encoder = Callable[[tuple[int, ...], ModelConfig], nn.Module]  # (shape, settings) -> module with num_features


def make_trunk(space: Space, config: ModelConfig, encoder: Encoder | None = None) -> nn.Module:
    """Make the module that computes features (*batch, num_features) from the output of an ObsInput, in `space`.

    encoder: for the keys that keep their shape (images or sets); everything else is a vector already. For a single
    vector it is the linear layers alone.
    """
    shapes = {key: leaf.shape or () for key, leaf in leaf_spaces(space).items()}
    if list(shapes) == [""] and len(shapes[""]) == 1:
        return MLP(shapes[""][0], config.hidden_sizes, config.activation)
    return Trunk(shapes, set_masks(space), config, encoder)


@final
class Trunk(nn.Module):
    """An encoder per key, their features concatenated in the order of the keys, then an MLP.

    shapes: shape of each input by key, under "" if the input is a tensor. masks: set -> key of its mask.
    """

    def __init__(
        self, shapes: dict[str, tuple[int, ...]], masks: dict[str, str], config: ModelConfig, encoder: Encoder | None
    ) -> None:
        super().__init__()
        self.keys = [key for key in shapes if key not in masks.values()]
        self.masks = [masks.get(key) for key in self.keys]
        encoders: list[nn.Module] = []
        sizes = []
        for key in self.keys:
            shape = shapes[key]
            if len(shape) == 1 or encoder is None:
                encoders.append(nn.Identity())
                sizes.append(shape[0])
            else:
                encoders.append(encoder(shape, config))
                sizes.append(width(encoders[-1]))
        self.encoders = nn.ModuleList(encoders)
        self.mlp = MLP(sum(sizes), config.hidden_sizes, config.activation)
        self.num_features = self.mlp.num_features

    def forward(self, inputs: Tree) -> Tensor:
        """Compute the features (*batch, num_features) of a tensor (*batch, *shape), or of one per key."""
        tensors = inputs if isinstance(inputs, dict) else {"": inputs}
        parts = [
            encoder(tensors[key]) if mask is None else encoder(tensors[key], tensors[mask])
            for key, mask, encoder in zip(self.keys, self.masks, self.encoders, strict=True)
        ]
        return self.mlp(torch.cat(parts, -1) if len(parts) > 1 else parts[0])


@final
class WithoutKeys(nn.Module):
    """A body that gets only some keys of its inputs, so that keys hidden from the actor cannot reach it."""

    def __init__(self, body: nn.Module, keys: tuple[str, ...]) -> None:
        super().__init__()
        self.body, self.keys = body, keys
        self.num_features = width(body)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Compute the features (*batch, num_features) of {key: (*batch, *shape)}."""
        return self.body({key: inputs[key] for key in self.keys})
