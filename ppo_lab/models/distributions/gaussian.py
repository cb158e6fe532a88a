"""Normal distributions: plain, with gSDE's noise, and squashed into (-1, 1)."""

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

    noise(s) = phi(s) @ E, E (F, A) with E_fa ~ N(0, sigma_fa^2), so noise is smooth in the state and not white.
    """

    def __init__(self, features: Tensor, sigma: Tensor, noise: Noise) -> None:
        self.features = features  # (N, F), detached
        self.sigma = sigma  # (F, A)
        self.matrix, self.stale = noise  # (N, F, A) written to; (N,) bool

    @torch.no_grad()  # the matrix outlives this step
    def draw(self, generator: Generator | None) -> Tensor:
        """Return phi @ E, (N, A), after redrawing stale matrices in place.

        All matrices are drawn, but only stale ones are replaced: the host does not know which ones these are, and the
        generator always advances by the same amount.
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
        self.held = held  # the source of noise for samples; None: white noise

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Sample mean + std * noise, (*batch, A). It is not clipped, since the likelihood is that of this number."""
        if self.held is not None:
            return self.mean + self.held.draw(generator)
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return torch.addcmul(self.mean, noise, self.std)

    def mode(self) -> Tensor:
        """Return the mean, (*batch, A)."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log density: the sum over A of -((x - mean) / std)^2 / 2 - log std - log(2 pi) / 2, (*batch)."""
        squares = ((action - self.mean) / self.std).square().sum(-1)  # (*batch)
        return -0.5 * squares - self.sum_log_std - 0.5 * math.log(2 * math.pi) * self.mean.shape[-1]

    def entropy(self) -> Tensor:
        """Return the entropy in nats: the sum over A of log std + log(2 pi e) / 2, (*batch)."""
        entropy = self.sum_log_std + 0.5 * math.log(2 * math.pi * math.e) * self.mean.shape[-1]
        return entropy.expand(self.mean.shape[:-1])

    def kl(self, other: DiagonalGaussian) -> Tensor:
        """Return KL(self || other): the sum over A of log(q/p) + (p^2 + (mean_p - mean_q)^2) / 2q^2 - 1/2, (*batch).

        p and q are the stds of self and other. With expm1 the result is exactly 0 for equal distributions, and small
        results are accurate to all digits, so no epsilon is needed.
        """
        twice = 2 * (self.log_std - other.log_std)  # log of the ratio of variances
        apart = ((self.mean - other.mean) / other.std).square()
        return 0.5 * (twice.expm1() - twice + apart).sum(-1)


@final
class SquashedGaussian:
    """The distribution of affine(tanh(z)) with z normal: never outside the Box (Haarnoja et al. 2018, appendix C).

    Actions are z, before the tanh: atanh of a saturated action would be infinite. log_prob and entropy are those of
    the action in the Box: a density that integrates to 1 over the Box.
    """

    def __init__(self, normal: DiagonalGaussian, log_volume: float) -> None:
        self.normal = normal
        self.log_volume = log_volume  # sum over A of log((high - low) / 2), for the affine map

    @property
    def mean(self) -> Tensor:
        """Mean of z, (*batch, A)."""
        return self.normal.mean

    @property
    def std(self) -> Tensor:
        """Standard deviation of z, (A,) or (*batch, A)."""
        return self.normal.std

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Sample z, (*batch, A)."""
        return self.normal.sample(generator)

    def mode(self) -> Tensor:
        """Return z at the median of each dimension, (*batch, A), as in SAC. A large std makes the density bimodal."""
        return self.normal.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log density: log N(z) - sum_a log(1 - tanh(z_a)^2) - log_volume, (*batch)."""
        return self.normal.log_prob(action) - _log_slope(action).sum(-1) - self.log_volume

    def entropy(self) -> Tensor:
        """Return the entropy in nats: H(z) + sum_a E[log(1 - tanh(z_a)^2)] + log_volume, (*batch).

        The expectation has no closed form; it is computed with the trapezoidal rule over the normal density. For smooth
        functions this is as accurate as Gauss quadrature. Unlike the usual single sample it has no variance, needs no
        generator, and has a gradient.
        """
        t = torch.linspace(-NODES_REACH, NODES_REACH, NODES, dtype=self.mean.dtype, device=self.mean.device)
        weights = (-0.5 * t.square()).softmax(0)  # (nodes,) exp(-t^2 / 2), summing to 1
        z = self.mean.unsqueeze(-1) + self.std.unsqueeze(-1) * t  # (*batch, A, nodes)
        expected = (_log_slope(z) * weights).sum((-2, -1))  # (*batch)
        return self.normal.entropy() + expected + self.log_volume

    def kl(self, other: SquashedGaussian) -> Tensor:
        """Return KL(self || other) of the normals, (*batch): an invertible map does not change it."""
        return self.normal.kl(other.normal)


def _log_slope(z: Tensor) -> Tensor:
    """Return log d tanh(z) / dz = log(1 - tanh(z)^2) = 2 (log 2 - z - softplus(-2z)), which does not overflow."""
    return 2.0 * (math.log(2.0) - z + F.logsigmoid(2.0 * z))  # -softplus(-x), without torch's cut at 20
