"""The interface of action distributions, and the functions that their heads share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Protocol, Self, TypeVar

import torch
from torch import Generator, Tensor, nn

Noise = tuple[Tensor, Tensor]
"""gSDE: the noise matrix of each environment (N, F, A), and which of them `sample` redraws in place, (N,) bool."""

HALVES = (torch.float16, torch.bfloat16)
M = TypeVar("M", bound=nn.Module)
D = TypeVar("D")


class Distribution(Protocol):
    """The distribution of the policy's action for each row of a batch (*batch)."""

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Sample an action per row with `generator`: (*batch) or (*batch, A)."""
        ...

    def mode(self) -> Tensor:
        """Return the action per row without exploration: the most likely one, or as the distribution defines it."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log pi(action) per row, summed over the parts of an action: (*batch)."""
        ...

    def entropy(self) -> Tensor:
        """Return -E[log pi] per row in nats, summed over the parts of an action: (*batch)."""
        ...

    def kl(self, other: Self) -> Tensor:
        """Return KL(self || other) = E_self[log self - log other] per row, (*batch). Exactly 0 against itself."""
        ...


def in_float32(forward: Callable[[M, Tensor, Tensor | None, Noise | None], D]) -> Callable[..., D]:
    """Make a head compute in float32 on half-precision features and under autocast (float64 stays float64).

    A probability in bfloat16 has three digits, too few for the ratio of two probabilities.
    """

    @wraps(forward)
    def wrapper(self: M, features: Tensor, mask: Tensor | None = None, noise: Noise | None = None) -> D:
        # runs at every step: asking for both devices is faster than reading the features' device, and *args would
        # cost a microsecond
        if not (features.dtype in HALVES or torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")):
            return forward(self, features, mask, noise)
        with torch.autocast(features.device.type, enabled=False):
            return forward(self, features.float() if features.dtype in HALVES else features, mask, noise)

    return wrapper


def without_noise(head: nn.Module, num_envs: int) -> dict[str, Tensor]:
    """Return {}: the `initial_noise` of a head without gSDE."""
    return {}


def initial_noise(head: nn.Module, num_envs: int, num_features: int, size: int) -> dict[str, Tensor]:
    """Return gSDE's part of the memory: "noise" (N, F, A) float and "noise_age" (N,) int64, steps since the draw."""
    weight = next(head.parameters())
    return {
        "noise": weight.new_zeros(num_envs, num_features, size),
        "noise_age": torch.zeros(num_envs, dtype=torch.int64, device=weight.device),
    }
