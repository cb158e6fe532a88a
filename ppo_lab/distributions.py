"""Action space -> action distribution: the heads that make one, and what one can do."""

from __future__ import annotations

import math
from typing import Protocol, final

import torch
from gymnasium import Space, spaces
from torch import Generator, Tensor, nn

from ppo_lab.errors import EnvError
from ppo_lab.networks.mlp import orthogonal

LOG_STD_BOUNDS = (-20.0, 2.0)  # beyond them exp() and 1/std leave float32; inside the clamp changes nothing


class Distribution(Protocol):
    """What the policy may do at each row of a batch (*batch)."""

    def sample(self, generator: Generator | None = None) -> Tensor:
        """An action per row, drawn with `generator`: (*batch) or (*batch, A)."""
        ...

    def mode(self) -> Tensor:
        """The most likely action per row."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """log pi(action) per row, summed over action dimensions: (*batch)."""
        ...

    def entropy(self) -> Tensor:
        """-E[log pi] per row in nats, summed over action dimensions: (*batch)."""
        ...


@final
class Categorical:
    """One of n actions; pi(i) = softmax(logits)_i."""

    def __init__(self, logits: Tensor) -> None:
        self.log_probs = logits.log_softmax(-1)  # (*batch, n)

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Index of each row's action, (*batch) int64.

        The exponential race: argmax_i p_i / E_i with E_i ~ Exp(1) is i with probability p_i. Three small operations
        on any device, where torch.multinomial copies to the host to check its input.
        """
        race = torch.empty_like(self.log_probs).exponential_(generator=generator)
        return (self.log_probs.exp() / race).argmax(-1)

    def mode(self) -> Tensor:
        """(*batch) int64."""
        return self.log_probs.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """(*batch)."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """H = -sum_i p_i log p_i, (*batch)."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)


@final
class DiagonalGaussian:
    """Independent normal distributions of A action dimensions."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean = mean  # (*batch, A)
        self.log_std = log_std  # (A,)
        self.std = log_std.exp()  # (A,)

    def sample(self, generator: Generator | None = None) -> Tensor:
        """mean + std * noise, not clipped: the likelihood belongs to this number, (*batch, A)."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return torch.addcmul(self.mean, noise, self.std)

    def mode(self) -> Tensor:
        """(*batch, A)."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """sum_a of -((x - mean) / std)^2 / 2 - log std - log(2 pi) / 2, (*batch)."""
        squares = ((action - self.mean) / self.std).square().sum(-1)  # (*batch)
        return -0.5 * squares - self.log_std.sum() - 0.5 * math.log(2 * math.pi) * self.mean.shape[-1]

    def entropy(self) -> Tensor:
        """sum_a of log std + log(2 pi e) / 2, the same in every row, (*batch)."""
        entropy = self.log_std.sum() + 0.5 * math.log(2 * math.pi * math.e) * self.mean.shape[-1]
        return entropy.expand(self.mean.shape[:-1])


@final
class CategoricalHead(nn.Module):
    """Features -> Categorical over a Discrete(n, start) space."""

    def __init__(self, num_features: int, space: spaces.Discrete) -> None:
        super().__init__()
        self.logits = orthogonal(num_features, int(space.n), gain=0.01)  # nearly uniform at the start
        self.start = int(space.start)
        self.action_shape: tuple[int, ...] = ()
        self.action_dtype = torch.int64

    def forward(self, features: Tensor) -> Categorical:
        """(*batch, features) -> distribution over (*batch)."""
        return Categorical(self.logits(features))

    def to_env(self, action: Tensor) -> Tensor:
        """The policy's 0..n-1 as the environment counts: start..start+n-1."""
        return action + self.start if self.start else action


@final
class GaussianHead(nn.Module):
    """Features -> DiagonalGaussian whose unit interval [-1, 1] is the Box; std is learned, the same in every state."""

    low: Tensor  # (A,)
    high: Tensor  # (A,)

    def __init__(self, num_features: int, space: spaces.Box, log_std_init: float) -> None:
        super().__init__()
        self.shape = tuple(space.shape)
        size = math.prod(self.shape)
        self.mean = orthogonal(num_features, size, gain=0.01)
        self.log_std = nn.Parameter(torch.full((size,), log_std_init))
        self.register_buffer("low", torch.as_tensor(space.low, dtype=torch.float32).flatten().clone(), persistent=False)
        self.register_buffer(
            "high", torch.as_tensor(space.high, dtype=torch.float32).flatten().clone(), persistent=False
        )
        self.bounded = bool(space.is_bounded())
        self.action_shape: tuple[int, ...] = (size,)
        self.action_dtype = torch.float32

    def forward(self, features: Tensor) -> DiagonalGaussian:
        """(*batch, features) -> distribution over (*batch, A)."""
        return DiagonalGaussian(self.mean(features), self.log_std.clamp(*LOG_STD_BOUNDS))

    def to_env(self, action: Tensor) -> Tensor:
        """(*batch, A) -> (*batch, *shape) inside the Box: [-1, 1] is stretched over [low, high], the rest clipped.

        Both bounds are reachable, exactly. A Box with an infinite side is not stretched, only clipped.
        """
        if self.bounded:
            # lerp with weights 0 and 1 gives low and high to the bit
            action = torch.lerp(self.low, self.high, (action.clamp(-1.0, 1.0) + 1.0) * 0.5)
        action = torch.clamp(action, self.low, self.high)
        return action if len(self.shape) == 1 else action.reshape(*action.shape[:-1], *self.shape)


Head = CategoricalHead | GaussianHead


def make_head(space: Space, num_features: int, log_std_init: float) -> Head:
    """The head for an action space. Raises EnvError for a space without one."""
    if isinstance(space, spaces.Discrete):
        return CategoricalHead(num_features, space)
    if isinstance(space, spaces.Box):
        return GaussianHead(num_features, space, log_std_init)
    raise EnvError(f"action space {space} is not supported; supported: Discrete and Box")
