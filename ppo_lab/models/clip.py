"""A clamp whose gradient is the same in every version of torch."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

Bound = TypeVar("Bound", float, Tensor)


def clip(x: Tensor, low: Bound, high: Bound) -> Tensor:
    """Limit x to [low, high], (*x). The gradient is 1 inside and at the bounds, 0 outside. NaN stays NaN.

    The gradient of `torch.clamp` at a bound depends on the version: it is 1 in torch 2.13. In 2.14 it is 0 for bounds
    that are numbers, so a log std that starts at its bound would never leave it, and 1/2 for bounds that are tensors.
    """
    return torch.where((x >= low) & (x <= high), x, x.detach().clamp(low, high))
