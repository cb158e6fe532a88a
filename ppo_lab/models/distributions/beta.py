"""The Beta distribution: actions that cannot leave the Box (Chou, Maturana and Scherer 2017)."""

from __future__ import annotations

from typing import final

import torch
from torch import Generator, Tensor

from ppo_lab.models.private_names import standard_gamma

EDGE = 1e-6  # actions keep this distance from 0 and 1, where the density is 0 or infinite


@final
class Beta:
    """x ~ Beta(1 + a, 1 + b) in each of A dimensions, with a, b >= 0: one peak, and a finite density everywhere.

    Actions are x in [EDGE, 1 - EDGE]; log_prob and entropy are of low + x (high - low): a density that integrates to 1
    over the Box. They are computed in float64: lgamma(200) is 857, and float32 would keep only 1e-4 of it.
    """

    def __init__(self, a: Tensor, b: Tensor, log_volume: float) -> None:
        self.a, self.b = a, b  # (*batch, A): alpha - 1, beta - 1
        self.log_volume = log_volume  # sum_a of log(high - low)

    @property
    def mean(self) -> Tensor:
        """Mean of x, (*batch, A)."""
        return (1 + self.a) / (2 + self.a + self.b)

    @property
    def std(self) -> Tensor:
        """Standard deviation of x, (*batch, A)."""
        return (self.mean * (1 - self.mean) / (3 + self.a + self.b)).sqrt()

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Sample x, (*batch, A), as G_a / (G_a + G_b) with G ~ Gamma. (torch.distributions takes no generator.)"""
        with torch.no_grad():
            shapes = torch.stack((self.a, self.b)) + 1
            first, second = standard_gamma(shapes, generator)
            return (first / (first + second)).clamp(EDGE, 1 - EDGE)

    def mode(self) -> Tensor:
        """Return the peak a / (a + b), (*batch, A); 1/2 for the uniform distribution, which has no peak."""
        tiny = 1e-12
        return ((self.a + tiny) / (self.a + self.b + 2 * tiny)).clamp(EDGE, 1 - EDGE)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log density, (*batch).

        The sum over A of a log x + b log(1 - x) - log B(1 + a, 1 + b), - log_volume.
        """
        a, b, x = self.a.double(), self.b.double(), action.double()
        each = a * x.log() + b * (-x).log1p() - _log_beta(a, b)
        return (each.sum(-1) - self.log_volume).to(self.a.dtype)

    def entropy(self) -> Tensor:
        """Return the entropy in nats, (*batch).

        The sum over A of log B(1 + a, 1 + b) - a psi(1 + a) - b psi(1 + b) + (a + b) psi(2 + a + b), + log_volume.
        """
        a, b = self.a.double(), self.b.double()
        each = _log_beta(a, b) - a * (1 + a).digamma() - b * (1 + b).digamma() + (a + b) * (2 + a + b).digamma()
        return (each.sum(-1) + self.log_volume).to(self.a.dtype)

    def kl(self, other: Beta) -> Tensor:
        """Return KL(p || q) of self p and other q, (*batch).

        The sum over A of log(B_q / B_p) + (a_p - a_q) psi(1 + a_p) + (b_p - b_q) psi(1 + b_p)
        - (a_p - a_q + b_p - b_q) psi(2 + a_p + b_p).
        """
        a, b = self.a.double(), self.b.double()
        more_a, more_b = a - other.a.double(), b - other.b.double()
        each = _log_beta(other.a.double(), other.b.double()) - _log_beta(a, b)
        each = each + more_a * (1 + a).digamma() + more_b * (1 + b).digamma()
        return (each - (more_a + more_b) * (2 + a + b).digamma()).sum(-1).to(self.a.dtype)


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    """Return log B(1 + a, 1 + b)."""
    return (1 + a).lgamma() + (1 + b).lgamma() - (2 + a + b).lgamma()
