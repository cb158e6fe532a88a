"""Observation space -> float features: the only file besides `distributions` and `envs` that looks at spaces."""

from __future__ import annotations

import math

import torch
from gymnasium import Space, spaces
from torch import Tensor, nn
from torch.nn import functional as F

from ppo_lab.errors import EnvError
from ppo_lab.networks.normalization import ObsNormalizer


class ObsFeatures(nn.Module):
    """An observation of any supported space as a flat float vector, normalised if asked.

    Box (*shape): flattened to prod(shape) features. Discrete(n, start): one-hot of n features, never normalised.
    """

    def __init__(self, space: Space, normalize: bool, clip: float) -> None:
        super().__init__()
        self.obs_shape = tuple(space.shape or ())
        self.one_hot: tuple[int, int] | None = None  # (n, start) of a Discrete space
        if isinstance(space, spaces.Discrete):
            self.one_hot = int(space.n), int(space.start)
            self.num_features = int(space.n)
        elif isinstance(space, spaces.Box):
            self.num_features = math.prod(self.obs_shape)
        else:
            raise EnvError(f"observation space {space} is not supported; supported: Box and Discrete")
        self.normalizer = ObsNormalizer(self.num_features, clip) if normalize and self.one_hot is None else None

    def forward(self, obs: Tensor) -> Tensor:
        """(*batch, *obs) -> (*batch, num_features) float32 (float64 stays float64)."""
        features = self.flatten(obs)
        return features if self.normalizer is None else self.normalizer(features)

    def flatten(self, obs: Tensor) -> Tensor:
        """(*batch, *obs) -> (*batch, num_features), before normalisation."""
        if self.one_hot is not None:
            n, start = self.one_hot
            return F.one_hot((obs - start).long(), n).to(torch.get_default_dtype())
        if len(self.obs_shape) != 1:
            obs = obs.reshape(*obs.shape[: obs.dim() - len(self.obs_shape)], self.num_features)
        return obs if obs.is_floating_point() else obs.to(torch.get_default_dtype())

    def refresh(self, obs: Tensor) -> None:
        """Take the observations (M, *obs) the policy saw into the running statistics, for the next rollout."""
        if self.normalizer is not None:
            self.normalizer.refresh(self.flatten(obs))
