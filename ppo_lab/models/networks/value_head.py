"""The critic's last layer, with or without normalised targets."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppo_lab.models.networks.normalization import RunningMoments


class ValueHead(nn.Linear):
    """Features (*batch, F) -> V(s) (*batch). With `normalize` it learns (V - mean) / std, but returns V.

    This is PopArt (van Hasselt et al. 2016). When the mean and std of the returns change, weight and bias are adjusted
    so that V stays the same:

        w' = w * std / std',        b' = (std * b + mean - mean') / std'
    """

    mean: Tensor  # () float32, in use
    scale: Tensor  # () float32 std of the returns, in use

    def __init__(self, num_features: int, normalize: bool) -> None:
        super().__init__(num_features, 1)
        nn.init.orthogonal_(self.weight, 1.0)
        nn.init.zeros_(self.bias)
        self.moments = RunningMoments() if normalize else None
        if normalize:
            self.register_buffer("mean", torch.zeros(()))
            self.register_buffer("scale", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """Return V (*batch), in the units of the returns, from features (*batch, F)."""
        value = F.linear(features, self.weight, self.bias).squeeze(-1)
        return value if self.moments is None else torch.addcmul(self.mean, value, self.scale)

    def normalized(self, value: Tensor) -> Tensor:
        """Divide a value or return by the std, to the units of the loss. The mean cancels in every difference."""
        return value if self.moments is None else value / self.scale

    @torch.no_grad()
    def refresh(self, returns: Tensor) -> None:
        """Add returns (M,) to the statistics and use these from now on; V stays the same up to rounding."""
        if self.moments is None or len(returns) == 0:
            return
        self.moments.update(returns)
        mean, scale = self.moments.mean.float(), (self.moments.var.float() + 1e-8).sqrt().clamp(min=1e-4)
        self.weight.mul_(self.scale / scale)
        self.bias.copy_((self.scale * self.bias + self.mean - mean) / scale)
        self.mean.copy_(mean)
        self.scale.copy_(scale)


def converted_head(saved: Mapping[str, Tensor], normalize: bool) -> dict[str, Tensor]:
    """Convert the `state_dict` of a head to one with or without `normalize`; V stays the same.

    New statistics have mean 0 and std 1. Old ones are folded into the layer: w' = std * w, b' = std * b + mean.
    """
    if normalize:
        return {**ValueHead(1, True).state_dict(), **saved}
    weight, bias, mean, std = (saved[name] for name in ("weight", "bias", "mean", "scale"))
    return {"weight": std * weight, "bias": std * bias + mean}


def restarted_head(saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the `state_dict` of a head with `normalize`, with statistics that start again from zero; V stays the same.

    Mean and std stay in use until the next `refresh`, which adjusts weight and bias to the new ones.
    """
    return {name: torch.zeros_like(rows) if name.startswith("moments.") else rows for name, rows in saved.items()}
