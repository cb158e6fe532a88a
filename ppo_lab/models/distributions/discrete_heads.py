"""The heads for discrete action spaces: features -> distribution over finitely many actions."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from ppo_lab.models.distributions.contract import Noise, in_float32, without_noise
from ppo_lab.models.distributions.discrete import Categorical, MultiCategorical
from ppo_lab.models.distributions.masks import PADDING, forbid
from ppo_lab.models.networks.mlp import orthogonal


@final
class CategoricalHead(nn.Module):
    """Features -> Categorical over a Discrete(n, start) space. Mask: (*batch, n)."""

    initial_noise = without_noise

    def __init__(self, num_features: int, space: spaces.Discrete) -> None:
        super().__init__()
        self.logits = orthogonal(num_features, int(space.n), gain=0.01)  # nearly uniform at the start
        self.start = int(space.start)
        self.action_shape: tuple[int, ...] = ()
        self.action_dtype = torch.int64
        self.mask_layout: tuple[int, ...] = (int(space.n),)
        self.mask_size = int(space.n)
        self.noise_size = 0

    @in_float32
    def forward(self, features: Tensor, mask: Tensor | None = None, noise: Noise | None = None) -> Categorical:
        """Return a distribution over (*batch) from features (*batch, F)."""
        logits = self.logits(features)
        return Categorical(logits if mask is None else forbid(logits, mask))

    def to_env(self, action: Tensor) -> Tensor:
        """Convert the policy's 0..n-1 to the environment's start..start+n-1."""
        return action + self.start if self.start else action


@final
class MultiCategoricalHead(nn.Module):
    """Features -> MultiCategorical over a MultiDiscrete(nvec, start) space of any shape, k components in all.

    Mask: (*batch, sum(nvec)), component by component.
    """

    start: Tensor  # (k,) int64
    column: Tensor  # (k * n,) int64: the logit of [component, choice]
    padding: Tensor  # (k, n) bool: True where a component has no such choice

    initial_noise = without_noise

    def __init__(self, num_features: int, space: spaces.MultiDiscrete) -> None:
        super().__init__()
        nvec = np.asarray(space.nvec, dtype=np.int64).ravel()
        most, choice = int(nvec.max()), np.arange(nvec.max())
        padding = choice >= nvec[:, None]  # (k, n)
        column = np.where(padding, 0, np.cumsum(nvec)[:, None] - nvec[:, None] + choice)
        self.logits = orthogonal(num_features, int(nvec.sum()), gain=0.01)
        self.register_buffer("column", torch.from_numpy(column.ravel()), persistent=False)
        self.register_buffer("padding", torch.from_numpy(padding), persistent=False)
        start = np.asarray(space.start, dtype=np.int64).ravel()
        self.register_buffer("start", torch.from_numpy(start.copy()), persistent=False)
        self.shift = bool(start.any())
        self.pad = bool(padding.any())
        self.grid = (len(nvec), most)
        self.shape = tuple(space.shape)
        self.action_shape: tuple[int, ...] = (len(nvec),)
        self.action_dtype = torch.int64
        self.mask_layout: tuple[int, ...] = tuple(nvec.tolist())
        self.mask_size = int(nvec.sum())
        self.noise_size = 0

    @in_float32
    def forward(self, features: Tensor, mask: Tensor | None = None, noise: Noise | None = None) -> MultiCategorical:
        """Return a distribution over (*batch, k) from features (*batch, F)."""
        logits = self.logits(features)  # (*batch, sum(nvec))
        if mask is not None:
            logits = forbid(logits, mask)
        if not self.pad:
            return MultiCategorical(logits.unflatten(-1, self.grid))
        logits = logits.index_select(-1, self.column).unflatten(-1, self.grid)  # (*batch, k, n)
        return MultiCategorical(logits.masked_fill(self.padding, PADDING))

    def to_env(self, action: Tensor) -> Tensor:
        """Convert (*batch, k) counted from 0 to (*batch, *shape) counted from each component's start."""
        if self.shift:
            action = action + self.start
        return action if len(self.shape) == 1 else action.reshape(*action.shape[:-1], *self.shape)


@final
class BinaryHead(nn.Module):
    """Features -> m independent bits, a MultiBinary space of any shape: one logit each, P(1) = sigmoid(logit).

    The distribution is a MultiCategorical of two choices with logits (0, logit), which is equivalent and handles masks.
    Mask: (*batch, 2 m): whether bit 0 may be 0, bit 0 may be 1, bit 1 may be 0, ...
    """

    initial_noise = without_noise

    def __init__(self, num_features: int, space: spaces.MultiBinary) -> None:
        super().__init__()
        self.shape = tuple(space.shape)
        size = int(np.prod(self.shape))
        self.logits = orthogonal(num_features, size, gain=0.01)
        self.action_shape: tuple[int, ...] = (size,)
        self.action_dtype = torch.int64
        self.mask_layout: tuple[int, ...] = (2,) * size
        self.mask_size = 2 * size
        self.noise_size = 0

    @in_float32
    def forward(self, features: Tensor, mask: Tensor | None = None, noise: Noise | None = None) -> MultiCategorical:
        """Return a distribution over (*batch, m) from features (*batch, F)."""
        logits = F.pad(self.logits(features).unsqueeze(-1), (1, 0))  # (*batch, m, 2)
        return MultiCategorical(logits if mask is None else forbid(logits, mask.unflatten(-1, (-1, 2))))

    def to_env(self, action: Tensor) -> Tensor:
        """Reshape (*batch, m) of 0 and 1 to (*batch, *shape)."""
        return action if len(self.shape) == 1 else action.reshape(*action.shape[:-1], *self.shape)
