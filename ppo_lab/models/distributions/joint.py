"""The distribution of several actions at once, each with its own distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Generator, Tensor

from ppo_lab.models.distributions.contract import Distribution


class Columns(NamedTuple):
    """The columns of a joint action that belong to one component."""

    shape: tuple[int, ...]  # of the component's own action: () or (A,)
    dtype: torch.dtype

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.shape[0] if self.shape else 1


def split(action: Tensor, columns: Sequence[Columns]) -> list[Tensor]:
    """Split (*batch, sum of widths) into each component's own action (*batch, *shape) with its dtype."""
    parts = action.split([each.width for each in columns], dim=-1)
    return [
        (part if each.shape else part.squeeze(-1)).to(each.dtype if each.dtype == torch.int64 else part.dtype)
        for part, each in zip(parts, columns, strict=True)
    ]


@final
class Joint:
    """Independent components side by side: probabilities multiply, so log_prob, entropy and KL add up.

    An action is one tensor (*batch, sum of widths): the components' actions in order, indices as floats if any
    component is continuous.
    """

    def __init__(self, parts: Sequence[Distribution], columns: Sequence[Columns]) -> None:
        self.parts = parts
        self.columns = columns

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Sample all components side by side, (*batch, sum of widths)."""
        return self._join([part.sample(generator) for part in self.parts])

    def mode(self) -> Tensor:
        """Return the modes side by side, (*batch, sum of widths)."""
        return self._join([part.mode() for part in self.parts])

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the sum of the components' log-probabilities, (*batch)."""
        actions = split(action, self.columns)
        return _total([part.log_prob(own) for part, own in zip(self.parts, actions, strict=True)])

    def entropy(self) -> Tensor:
        """Return the sum of the components' entropies, (*batch)."""
        return _total([part.entropy() for part in self.parts])

    def kl(self, other: Joint) -> Tensor:
        """Return KL(self || other), the sum of the components' divergences, (*batch)."""
        return _total([mine.kl(theirs) for mine, theirs in zip(self.parts, other.parts, strict=True)])

    def _join(self, actions: list[Tensor]) -> Tensor:
        pairs = zip(actions, self.columns, strict=True)
        return torch.cat([own if each.shape else own.unsqueeze(-1) for own, each in pairs], dim=-1)


def _total(terms: list[Tensor]) -> Tensor:
    """Return the sum of the terms, (*batch)."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
