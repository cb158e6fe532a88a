"""The attention encoder for sets: any number of entities, in any order -> features."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppo_lab.config import ModelConfig
from ppo_lab.models.networks.mlp import orthogonal

WIDENING = 4  # hidden width / attention_size of the layers after each attention (Vaswani et al. 2017)


@final
class SetEncoder(nn.Module):
    """A Transformer without positions over n entities of f features, then the mean and the maximum over those present.

    (*batch, n, f) -> (*batch, 2 * attention_size). The result depends neither on the order of the entities nor on the
    content of absent ones. Without any entity it is zeros. Attention: Vaswani et al. 2017; normalisation first: Xiong
    et al. 2020.
    """

    def __init__(self, shape: tuple[int, ...], config: ModelConfig) -> None:
        super().__init__()
        size, layers = config.attention_size, config.attention_layers
        self.embed = orthogonal(shape[-1], size, gain=1.0)
        self.blocks = nn.ModuleList(AttentionBlock(size, config.attention_heads, 2 * layers) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        self.num_features = 2 * size

    def forward(self, entities: Tensor, present: Tensor | None = None) -> Tensor:
        """Encode entities (*batch, n, f), present (*batch, n) bool or None (all), as (*batch, 2 * attention_size)."""
        batch, (n, f) = entities.shape[:-2], entities.shape[-2:]
        x = entities.reshape(math.prod(batch), n, f)  # (M, n, f)
        if present is None:
            x = self._attend(x, None)
            return torch.cat([x.mean(-2), x.amax(-2)], -1).reshape(*batch, self.num_features)
        present = present.reshape(math.prod(batch), n, 1)  # (M, n, 1)
        # absent entities become zeros first: NaN times a weight of 0 is NaN, forward and backward
        x = self._attend(x.where(present, 0.0), present)  # (M, n, size)
        count = present.sum(-2)  # (M, 1)
        mean = x.where(present, 0.0).sum(-2) / count.clamp(min=1)
        highest = x.where(present, -math.inf).amax(-2).where(count > 0, 0.0)
        return torch.cat([mean, highest], -1).reshape(*batch, self.num_features)

    def _attend(self, x: Tensor, present: Tensor | None) -> Tensor:
        """Apply the attention layers: (M, n, f) -> (M, n, size)."""
        seen = None
        if present is not None:
            # a softmax over nothing is NaN or 0, depending on the kernel: in an empty set every entity attends to all,
            # and the pooling ignores them
            seen = (present | ~present.any(-2, keepdim=True)).transpose(-1, -2).unsqueeze(1)  # (M, 1, 1, n)
        x = self.embed(x)
        for block in self.blocks:
            x = block(x, seen)
        return self.norm(x)


@final
class AttentionBlock(nn.Module):
    """A Transformer block: x + attention(norm(x)), then x + linear(gelu(linear(norm(x)))).

    branches: number of residual branches in the whole network. Each starts at 1/sqrt(branches) of its scale, so that
    their sum does not grow with the depth (Radford et al. 2019).
    """

    def __init__(self, size: int, heads: int, branches: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query, self.key, self.value = (orthogonal(size, size, gain=1.0) for _ in range(3))
        self.attended = orthogonal(size, size, gain=branches**-0.5)
        self.widen = orthogonal(size, WIDENING * size, gain=2**0.5)
        self.narrow = orthogonal(WIDENING * size, size, gain=branches**-0.5)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """Apply the block: x (M, n, size), seen (M, 1, 1, n) bool, True for entities to attend to -> (M, n, size)."""
        normed = self.norm_1(x)
        query, key, value = (
            layer(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (M, heads, n, size / heads)
            for layer in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)  # (M, heads, n, size / heads)
        x = x + self.attended(attended.transpose(1, 2).flatten(-2))
        return x + self.narrow(F.gelu(self.widen(self.norm_2(x))))
