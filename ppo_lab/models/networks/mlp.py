"""The MLP: linear layers with a non-linearity after each, and a faster tanh on the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ppo_lab.errors import ConfigError
from ppo_lab.models.private_names import holds

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": F.relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
}


def orthogonal(num_inputs: int, num_outputs: int, gain: float) -> nn.Linear:
    """Make a linear layer whose weight is orthogonal times `gain` (Saxe et al. 2014) and whose bias is 0."""
    layer = nn.Linear(num_inputs, num_outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def width(module: nn.Module) -> int:
    """Return the number of features of a module: its `num_features`. Raise ConfigError for a module that has none."""
    features = getattr(module, "num_features", None)
    if not isinstance(features, int):
        raise ConfigError(f"{type(module).__name__} has no num_features (int), the width of its output")
    return features


class MLP(nn.Module):
    """A multilayer perceptron: (..., num_inputs) -> (..., num_features).

    num_features is the width of the last hidden layer. Without hidden layers it is the identity.
    """

    def __init__(self, num_inputs: int, hidden_sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        sizes = [num_inputs, *hidden_sizes]
        self.layers = nn.ModuleList(orthogonal(i, o, gain=2**0.5) for i, o in itertools.pairwise(sizes))
        self.activation = ACTIVATIONS[activation]
        self.num_features = sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Compute features: (..., num_inputs) -> (..., num_features)."""
        if self._in_numpy(x):
            parameters = [parameter for layer in self.layers for parameter in (layer.weight, layer.bias)]
            features: Tensor = TanhLayers.apply(x.reshape(-1, x.shape[-1]), *parameters)
            return features.view(*x.shape[:-1], self.num_features)
        for layer in self.layers:
            x = self.activation(layer(x))
        return x

    def _in_numpy(self, x: Tensor) -> bool:
        """Return whether `TanhLayers` can compute this and is faster."""
        plain = self.activation is torch.tanh and x.device.type == "cpu" and x.dtype == torch.float32
        hooked = any(holds(layer, "_forward_hooks", "_forward_pre_hooks") for layer in self.layers)
        special = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or hooked
        return plain and len(self.layers) > 0 and not special


class TanhLayers(torch.autograd.Function):
    """The layers of a tanh MLP with NumPy's tanh: x (M, inputs), W_1, b_1, ..., W_n, b_n -> (M, outputs).

    They compute tanh(... tanh(x W_1' + b_1) ... W_n' + b_n). On processors for which MKL has no fast tanh, torch's
    takes 2 ns per number, nearly twice as long as a product with 64 others. NumPy's takes 0.2 ns; its error is about
    one unit in the last place, torch's half a unit. One autograd node for all layers, instead of four per layer, is
    faster too.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        """Compute all layers, and save their outputs for the gradient: x (M, inputs) -> (M, outputs)."""
        outputs = [x]
        for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
            outputs.append(torch.addmm(bias, outputs[-1], weight.t()))
            numbers = outputs[-1].numpy()
            np.tanh(numbers, out=numbers)
        ctx.save_for_backward(*outputs, *parameters[::2])
        return outputs[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of x and of all parameters from that of the output, (M, outputs).

        With z = x W' + b and y = tanh(z): dz = dy (1 - y^2), dW = dz' x, db = sum of dz, dx = dz W.
        """
        layers = len(ctx.saved_tensors) // 2
        outputs, weights = ctx.saved_tensors[: layers + 1], ctx.saved_tensors[layers + 1 :]
        found: list[Tensor] = []
        upstream: Tensor | None = gradient  # the gradient of layer i's output
        for i in reversed(range(layers)):
            assert upstream is not None
            inner = torch.addcmul(upstream, upstream, outputs[i + 1].square(), value=-1.0)
            found = [inner.t() @ outputs[i], inner.sum(0), *found]
            upstream = inner @ weights[i] if i or ctx.needs_input_grad[0] else None
        return upstream, *found
