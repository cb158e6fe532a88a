"""The layers of small MLPs and their gradients by hand, in preallocated memory; used by `mlp_gradient`.

Two networks of the same shapes are computed as one. This halves the number of operations, and at this size the overhead
of an operation takes longer than its arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ppo_lab.engine.flat_parameters import FlatParameters
from ppo_lab.models.private_names import operation

NARROW = 16  # a product with fewer columns takes several times as long as its transpose
ROOMS = 4  # sizes of minibatches and blocks for which views are kept
TANH, RELU = operation("tanh_backward", "grad_input"), operation("threshold_backward", "grad_input")
Array = np.ndarray  # float32: (M,), or (K, M) with one column per row of a block


class Room(NamedTuple):
    """The memory of a `StackedBody` for M rows."""

    outputs: list[Tensor]  # (K, M, H) of each layer
    numbers: list[Array]  # the same memory
    slopes: list[Tensor]  # (K, M, H) the gradient of each layer's output, then of its input to tanh or ReLU
    transposed: list[Tensor]  # (K, H, M) the same memory
    features: tuple[Tensor, ...]  # K of (M, H): the output of the last layer; x if there are no layers
    upstream: tuple[Tensor, ...]  # K of (M, H): its gradient, filled in by the heads


class StackedBody:
    """The hidden layers of K networks at once: x (M, F) -> features (K, M, H), and their gradients.

    Intermediate results are kept until the next `forward`.
    """

    def __init__(
        self,
        networks: int,
        layers: Sequence[Sequence[nn.Linear]],
        flat: FlatParameters,
        tanh: bool,
        rows: int,
        inputs: int,
    ) -> None:
        """Prepare. layers: for each layer, first to last, the K modules of the K networks, side by side in `flat`."""
        weights, biases = ([[getattr(one, name) for one in layer] for layer in layers] for name in ("weight", "bias"))
        self.weights = [flat.stack(flat.value, each) for each in weights]  # (K, H, F)
        self.transposed = [weight.mT for weight in self.weights]
        self.weight_grads = [flat.stack(flat.grad, each) for each in weights]
        self.biases = [flat.stack(flat.value, each).unsqueeze(1) for each in biases]  # (K, 1, H)
        self.bias_grads = [flat.stack(flat.grad, each) for each in biases]  # (K, H)
        widths = [bias.shape[2] for bias in self.biases]
        self.outputs = [flat.value.new_empty(networks, rows, width) for width in widths]
        self.slopes = [flat.value.new_empty(networks, rows, width) for width in widths or [inputs]]
        self.networks, self.tanh, self._rooms = networks, tanh, dict[int, Room]()
        self.narrow = inputs < NARROW

    def room(self, rows: int) -> Room:
        """Return the views for that many rows. They are cached: making one takes as long as a small operation."""
        if rows not in self._rooms:
            if len(self._rooms) == ROOMS:  # sizes vary if some rows are not experience
                self._rooms.clear()
            outputs, slopes = ([each[:, :rows] for each in several] for several in (self.outputs, self.slopes))
            features = outputs[-1].unbind() if outputs else ()
            numbers = [each.numpy() for each in outputs]
            self._rooms[rows] = Room(
                outputs, numbers, slopes, [each.mT for each in slopes], features, slopes[-1].unbind()
            )
        return self._rooms[rows]

    def forward(self, x: Tensor) -> Room:
        """Compute the features of x (M, F); return the `Room` that holds them."""
        below = x.expand(self.networks, *x.shape)
        room = self.room(below.shape[1])
        for weight, bias, output, numbers in zip(self.transposed, self.biases, room.outputs, room.numbers, strict=True):
            below = torch.baddbmm(bias, below, weight, out=output)
            np.tanh(numbers, out=numbers) if self.tanh else np.maximum(numbers, 0.0, out=numbers)
        return room if self.weights else room._replace(features=below.unbind())

    def backward(self, x: Tensor) -> None:
        """Add to the gradients, given those of the features in `Room.upstream`, which are overwritten.

        With z = x W' + b and y = tanh(z): dz = dy (1 - y^2), dW = dz' x, db = sum of dz, dx = dz W.
        """
        inputs = x.expand(self.networks, *x.shape)
        room = self.room(inputs.shape[1])
        for i in reversed(range(len(self.weights))):
            slope, y, below = room.slopes[i], room.outputs[i], room.outputs[i - 1] if i else inputs
            if self.tanh:
                slope.mul_(1.0 - y * y) if TANH is None else TANH(slope, y, grad_input=slope)
            else:
                slope.masked_fill_(y <= 0.0, 0.0) if RELU is None else RELU(slope, y, 0.0, grad_input=slope)
            if i == 0 and self.narrow:
                self.weight_grads[0].add_((inputs.mT @ slope).mT)
            else:
                self.weight_grads[i].baddbmm_(room.transposed[i], below)
            self.bias_grads[i].add_(slope.sum(1))
            if i:
                torch.bmm(slope, self.weights[i], out=room.slopes[i - 1])


class StackedHead:
    """A linear layer with transposed output, (M, H) -> (K, M), so that sums over few outputs are fast."""

    def __init__(self, layer: nn.Linear, flat: FlatParameters) -> None:
        self.weight, self.weight_grad = (flat.part(each, layer.weight) for each in (flat.value, flat.grad))
        self.bias, self.bias_grad = (flat.part(each, layer.bias) for each in (flat.value, flat.grad))
        self.column = self.bias.unsqueeze(-1)

    def forward(self, features: Tensor) -> Array:
        """Compute the output (K, M) of features (M, H)."""
        output: Array = torch.addmm(self.column, self.weight, features.t()).numpy()
        return output

    def backward(self, features: Tensor, by_output: Array, upstream: Tensor, add: bool = False) -> None:
        """Add to the gradients, given that of the output (K, M); write that of the features into `upstream` (M, H).

        add: add to `upstream` instead.
        """
        by = torch.from_numpy(by_output)
        self.weight_grad.addmm_(by, features)
        self.bias_grad.add_(by.sum(1))
        if add:
            upstream.addmm_(by.t(), self.weight)
        else:
            torch.mm(by.t(), self.weight, out=upstream)
