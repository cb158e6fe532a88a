"""Normal distributions: as they are, with gSDE's noise, and squashed into (-1, 1)."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ppo_lab.models.distributions.contract import Noise

NODES = 33  # of the squashed entropy: its error is 5e-9 nats at std 1, 2e-6 at std 2, 0.02 at std e^2
NODES_REACH = 6.0  # standard deviations; 2e-9 of the mass lies beyond


@final
class HeldNoise:
    """The noise of generalised state-dependent exploration (Raffin et al. 2021): the same matrix for many steps.

    noise(s) = phi(s) @ E, E (F, A) with E_fa ~ N(0, sigma_fa^2), so exploring is smooth in the state and not white.
    """

    def __init__(self, features: Tensor, sigma: Tensor, noise: Noise) -> None:
        self.features = features  # (N, F), detached
        self.sigma = sigma  # (F, A)
        self.matrix, self.stale = noise  # (N, F, A) written to; (N,) bool

    @torch.no_grad()  # the matrix outlives this step
    def draw(self, generator: Generator | None) -> Tensor:
        """Return phi @ E, (N, A), after redrawing stale matrices in place.

        All are drawn and some used: which ones is known on the device only, and the generator moves on by the same.
        """
        fresh = torch.empty_like(self.matrix).normal_(generator=generator) * self.sigma  # (N, F, A)
        self.matrix.copy_(torch.where(self.stale[:, None, None], fresh, self.matrix))
        return (self.features.unsqueeze(-1) * self.matrix).sum(-2)  # no matmul: autocast would round it


@final
class DiagonalGaussian:
    """Independent normal distributions of A action dimensions."""

    def __init__(self, mean: Tensor, log_std: Tensor, held: HeldNoise | None = None) -> None:
        self.mean = mean  # (*batch, A)
        self.log_std = log_std  # (A,), or (*batch, A) where it depends on the state
        self.std = log_std.exp()
        self.sum_log_std = log_std.sum(-1)  # () or (*batch)
        self.held = held  # where samples take their noise from; None: white

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Sample mean + std * noise, not clipped: the likelihood belongs to this number, (*batch, A)."""
        if self.held is not None:
            return self.mean + self.held.draw(generator)
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return torch.addcmul(self.mean, noise, self.std)

    def mode(self) -> Tensor:
        """Return the mean, (*batch, A)."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Return sum_a of -((x - mean) / std)^2 / 2 - log std - log(2 pi) / 2, (*batch)."""
        squares = ((action - self.mean) / self.std).square().sum(-1)  # (*batch)
        return -0.5 * squares - self.sum_log_std - 0.5 * math.log(2 * math.pi) * self.mean.shape[-1]

    def entropy(self) -> Tensor:
        """Return sum_a of log std + log(2 pi e) / 2, (*batch)."""
        entropy = self.sum_log_std + 0.5 * math.log(2 * math.pi * math.e) * self.mean.shape[-1]
        return entropy.expand(self.mean.shape[:-1])

    def kl(self, other: DiagonalGaussian) -> Tensor:
        """Return sum_a of log(q/p) + (p^2 + (mean_p - mean_q)^2) / 2q^2 - 1/2 with stds p, q, (*batch).

        Written with expm1, so that it is 0 for equals, and small ones have all their digits: no epsilon is needed.
        """
        twice = 2 * (self.log_std - other.log_std)  # log of the ratio of variances
        apart = ((self.mean - other.mean) / other.std).square()
        return 0.5 * (twice.expm1() - twice + apart).sum(-1)


@final
class SquashedGaussian:
    """a = affine(tanh(z)) with z normal: never outside the Box (Haarnoja et al. 2018, appendix C).

    Actions are z, from before the tanh: atanh of a saturated action would be infinite. log_prob and entropy are of the
    action in the Box that z stands for: a density that integrates to 1 over it.
    """

    def __init__(self, normal: DiagonalGaussian, log_volume: float) -> None:
        self.normal = normal
        self.log_volume = log_volume  # sum_a of log((high - low) / 2): what the affine map does to a density

    @property
    def mean(self) -> Tensor:
        """(*batch, A), of z."""
        return self.normal.mean

    @property
    def std(self) -> Tensor:
        """(A,) or (*batch, A), of z."""
        return self.normal.std

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Sample z, (*batch, A)."""
        return self.normal.sample(generator)

    def mode(self) -> Tensor:
        """Return the median in each dimension, (*batch, A), as in SAC: under a large std the density peaks at both
        ends.
        """
        return self.normal.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log N(z) - sum_a log(1 - tanh(z_a)^2) - log_volume, (*batch)."""
        return self.normal.log_prob(action) - _log_slope(action).sum(-1) - self.log_volume

    def entropy(self) -> Tensor:
        """Return H(z) + sum_a E[log(1 - tanh(z_a)^2)] + log_volume, (*batch); the expectation has no closed form.

        It is taken by the trapezoidal rule over the normal density: for smooth functions as exact as Gauss's, and
        unlike the usual single sample it has no variance, no need of a generator, and a gradient.
        """
        t = torch.linspace(-NODES_REACH, NODES_REACH, NODES, dtype=self.mean.dtype, device=self.mean.device)
        weights = (-0.5 * t.square()).softmax(0)  # (nodes,) exp(-t^2 / 2), summing to 1
        z = self.mean.unsqueeze(-1) + self.std.unsqueeze(-1) * t  # (*batch, A, nodes)
        expected = (_log_slope(z) * weights).sum((-2, -1))  # (*batch)
        return self.normal.entropy() + expected + self.log_volume

    def kl(self, other: SquashedGaussian) -> Tensor:
        """Return the divergence of the normals, (*batch): no invertible map changes it."""
        return self.normal.kl(other.normal)


def _log_slope(z: Tensor) -> Tensor:
    """Return log d tanh(z) / dz = log(1 - tanh(z)^2) = 2 (log 2 - z - softplus(-2z)), which does not overflow."""
    return 2.0 * (math.log(2.0) - z + F.logsigmoid(2.0 * z))  # -softplus(-x), without torch's cut at 20
