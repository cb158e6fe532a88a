"""Distributions over finitely many actions."""

from __future__ import annotations

from typing import final

import torch
from torch import Generator, Tensor


@final
class Categorical:
    """One of n actions; pi(i) = softmax(logits)_i. Illegal ones have logit `masks.ILLEGAL`, probability 0."""

    def __init__(self, logits: Tensor) -> None:
        self.log_probs = logits.log_softmax(-1)  # (*batch, n)

    @property
    def probabilities(self) -> Tensor:
        """Probability of each action, (*batch, n)."""
        return self.log_probs.exp()

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Sample the index of each row's action, (*batch) int64.

        The exponential race: argmax_i p_i / E_i with E_i ~ Exp(1) is i with probability p_i. It takes three small
        operations on any device, while torch.multinomial copies to the host to check its input. Torch never draws
        E_i = 0, so p_i = 0 never wins.
        """
        race = torch.empty_like(self.log_probs).exponential_(generator=generator)
        return (self.log_probs.exp() / race).argmax(-1)

    def mode(self) -> Tensor:
        """Return the most likely choice, (*batch) int64."""
        return self.log_probs.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log pi(action), (*batch)."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropy in nats: -sum_i p_i log p_i, (*batch)."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def kl(self, other: Categorical) -> Tensor:
        """Return KL(self || other): sum_i p_i (log p_i - log q_i), (*batch).

        Both need the same mask, or the result is practically infinite.
        """
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)


@final
class MultiCategorical:
    """k independent choices, all computed at once: component c of an action is i with probability softmax(logits_c)_i.

    Components with fewer than n choices are padded with `masks.PADDING`.
    """

    def __init__(self, logits: Tensor) -> None:
        self.each = Categorical(logits)  # over (*batch, k), of n

    @property
    def probabilities(self) -> Tensor:
        """Probability of each choice, (*batch, k, n); 0 where a component has fewer choices."""
        return self.each.probabilities

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Sample one choice of each component, (*batch, k) int64."""
        return self.each.sample(generator)

    def mode(self) -> Tensor:
        """Return the most likely choice of each component, (*batch, k) int64."""
        return self.each.mode()

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log pi(action), (*batch, k) -> (*batch)."""
        return self.each.log_prob(action).sum(-1)

    def entropy(self) -> Tensor:
        """Return the sum of the components' entropies, (*batch)."""
        return self.each.entropy().sum(-1)

    def kl(self, other: MultiCategorical) -> Tensor:
        """Return the sum of the components' divergences, (*batch)."""
        return self.each.kl(other.each).sum(-1)
