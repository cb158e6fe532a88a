"""A stack of linear layers with a non-linearity after each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppo_lab.errors import ConfigError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": F.relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
}


def orthogonal(num_inputs: int, num_outputs: int, gain: float) -> nn.Linear:
    """A linear layer whose weight is orthogonal times `gain` (Saxe et al. 2014) and whose bias is 0."""
    layer = nn.Linear(num_inputs, num_outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def width(module: nn.Module) -> int:
    """How many features it gives: its `num_features`. Raises ConfigError for a module that does not say."""
    features = getattr(module, "num_features", None)
    if not isinstance(features, int):
        raise ConfigError(f"{type(module).__name__} has no num_features (int), the width of what it gives")
    return features


class MLP(nn.Module):
    """(..., num_inputs) -> (..., num_features), the width of the last hidden layer; without one, the identity."""

    def __init__(self, num_inputs: int, hidden_sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        sizes = [num_inputs, *hidden_sizes]
        self.layers = nn.ModuleList(orthogonal(i, o, gain=2**0.5) for i, o in itertools.pairwise(sizes))
        self.activation = ACTIVATIONS[activation]
        self.num_features = sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        """(..., num_inputs) -> (..., num_features)."""
        for layer in self.layers:
            x = self.activation(layer(x))
        return x
