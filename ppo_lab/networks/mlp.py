"""A stack of linear layers with a non-linearity after each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
