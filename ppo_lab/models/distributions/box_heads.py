"""The heads for Box action spaces: features -> distribution."""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from ppo_lab.config import ModelConfig
from ppo_lab.errors import ConfigError, EnvError
from ppo_lab.models.clip import clip
from ppo_lab.models.distributions.beta import Beta
from ppo_lab.models.distributions.contract import Noise, in_float32, initial_noise, without_noise
from ppo_lab.models.distributions.gaussian import DiagonalGaussian, HeldNoise, SquashedGaussian
from ppo_lab.models.networks.mlp import orthogonal

VARIANCE_FLOOR = 1e-6  # gSDE: keeps the density finite for features that are all 0, which get no noise
MOST_CERTAIN = 1e4  # largest alpha - 1 of a Beta: a std of 0.4 % of the Box


@final
class BoxRange(nn.Module):
    """The bounds of a Box, flattened and in float32, and the maps into it."""

    low: Tensor  # (A,)
    high: Tensor  # (A,)

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self.shape = tuple(space.shape)
        self.size = math.prod(self.shape)
        if space.dtype is None or space.dtype.kind != "f":
            raise EnvError(f"action space {space} has integers, which are not supported; use Discrete or MultiDiscrete")
        if self.size == 0:
            raise EnvError(f"action space {space} has nothing to choose")
        self.register_buffer("low", torch.from_numpy(_inside(space.low, np.inf)), persistent=False)
        self.register_buffer("high", torch.from_numpy(_inside(space.high, -np.inf)), persistent=False)
        self.bounded = bool((self.high - self.low).isfinite().all())  # False if the width overflows float32 as well

    @property
    def is_unit(self) -> bool:
        """Whether the Box is [-1, 1] in every dimension, so that stretching [-1, 1] over it changes nothing."""
        return bool((self.low == -1.0).all() and (self.high == 1.0).all())

    def log_width(self, distribution: str) -> float:
        """Return sum_a of log(high - low). Raise EnvError if `distribution` cannot be used with this Box."""
        if not self.bounded or not bool((self.low < self.high).all()):
            raise EnvError(
                f"model.distribution: {distribution} needs a Box with finite bounds, low < high; got low "
                f"{_few(self.low)}, high {_few(self.high)}; gaussian works with any Box"
            )
        return float((self.high.double() - self.low.double()).log().sum())

    def stretch(self, unit: Tensor) -> Tensor:
        """Map (*batch, A) in [0, 1] to (*batch, *shape) in the Box; 0 and 1 give exactly low and high."""
        low, high = self.low, self.high  # a module's buffers are slow to look up
        return self._shaped(torch.clamp(torch.lerp(low, high, unit), low, high))

    def clip(self, action: Tensor) -> Tensor:
        """Clip (*batch, A) to the Box: (*batch, *shape)."""
        return self._shaped(torch.clamp(action, self.low, self.high))

    def _shaped(self, action: Tensor) -> Tensor:
        return action if len(self.shape) == 1 else action.reshape(*action.shape[:-1], *self.shape)


@final
class GaussianHead(nn.Module):
    """Features -> DiagonalGaussian, whose [-1, 1] is stretched over the Box (bound: rescale) or which is only clipped.

    std: free - log_std is a parameter (A,); state - a linear function of the features; gsde - noise held for many
    steps. Its marginal std is sqrt(phi^2 @ sigma^2), where log sigma is a parameter (F, A) and the features phi get no
    gradient. At the start it is exp(log_std_init) * |phi|, as in Stable-Baselines3.
    """

    def __init__(self, num_features: int, space: spaces.Box, settings: ModelConfig) -> None:
        super().__init__()
        self.box = BoxRange(space)
        size, start = self.box.size, settings.log_std_init
        self.mean = orthogonal(num_features, size, gain=0.01)
        self.log_std: nn.Parameter | nn.Linear
        if settings.std == "state":
            self.log_std = orthogonal(num_features, size, gain=0.01)
            nn.init.constant_(self.log_std.bias, start)
        else:
            shape = (num_features, size) if settings.std == "gsde" else (size,)
            self.log_std = nn.Parameter(torch.full(shape, start))
        self.log_std_bounds = (settings.log_std_min, settings.log_std_max)  # no effect inside the bounds
        self.rescale = settings.bound == "rescale" and self.box.bounded
        self.stretches = self.rescale and not self.box.is_unit
        self.num_features = num_features
        self.action_shape: tuple[int, ...] = (size,)
        self.action_dtype = torch.float32
        self.mask_layout: tuple[int, ...] = ()
        self.mask_size = 0
        self.noise_size = size if settings.std == "gsde" else 0

    def initial_noise(self, num_envs: int) -> dict[str, Tensor]:
        """Return gSDE's part of the memory, see `contract.initial_noise`; {} for another std."""
        return initial_noise(self, num_envs, self.num_features, self.noise_size) if self.noise_size else {}

    @in_float32
    def forward(self, features: Tensor, mask: Tensor | None = None, noise: Noise | None = None) -> DiagonalGaussian:
        """Return a distribution over (*batch, A) from features (*batch, F). With gSDE, `noise` is for (N, F)."""
        mean = self.mean(features)
        source = self.log_std
        log_std = clip(source(features) if isinstance(source, nn.Linear) else source, *self.log_std_bounds)
        if not self.noise_size:
            return DiagonalGaussian(mean, log_std)
        features, sigma = features.detach(), log_std.exp()  # (F, A)
        marginal = 0.5 * (features.square() @ sigma.square() + VARIANCE_FLOOR).log()  # (*batch, A)
        return DiagonalGaussian(mean, marginal, None if noise is None else HeldNoise(features, sigma, noise))

    def to_env(self, action: Tensor) -> Tensor:
        """Map (*batch, A) to (*batch, *shape) inside the Box: [-1, 1] is stretched over [low, high], the rest clipped.

        Both bounds can be reached exactly. A Box with an infinite side is not stretched, only clipped.
        """
        if self.stretches:
            return self.box.stretch((action.clamp(-1.0, 1.0) + 1.0) * 0.5)
        return self.box.clip(action)


@final
class SquashedHead(nn.Module):
    """Features -> SquashedGaussian over a Box with finite bounds; std as in `GaussianHead`."""

    def __init__(self, num_features: int, space: spaces.Box, settings: ModelConfig) -> None:
        super().__init__()
        _refuse_clip(settings)
        self.normal = GaussianHead(num_features, space, settings)
        self.box = self.normal.box
        self.log_volume = self.box.log_width("squashed") - self.box.size * math.log(2.0)
        self.action_shape = self.normal.action_shape
        self.action_dtype = torch.float32
        self.mask_layout: tuple[int, ...] = ()
        self.mask_size = 0
        self.noise_size = self.normal.noise_size

    def initial_noise(self, num_envs: int) -> dict[str, Tensor]:
        """Return gSDE's part of the memory, see `GaussianHead.initial_noise`."""
        return self.normal.initial_noise(num_envs)

    def forward(self, features: Tensor, mask: Tensor | None = None, noise: Noise | None = None) -> SquashedGaussian:
        """Return a distribution over z (*batch, A), which `to_env` squashes, from features (*batch, F)."""
        return SquashedGaussian(self.normal(features, None, noise), self.log_volume)

    def to_env(self, action: Tensor) -> Tensor:
        """Map z (*batch, A) to tanh(z), stretched over the Box (*batch, *shape)."""
        return self.box.stretch((action.tanh() + 1.0) * 0.5)


@final
class BetaHead(nn.Module):
    """Features -> Beta over a Box with finite bounds; alpha, beta = 1 + softplus(linear), both 1.7 at the start."""

    initial_noise = without_noise

    def __init__(self, num_features: int, space: spaces.Box, settings: ModelConfig) -> None:
        super().__init__()
        _refuse_clip(settings)
        if settings.std != "free":
            raise ConfigError(f"model.std: {settings.std} needs distribution gaussian or squashed; beta has no std")
        self.box = BoxRange(space)
        self.log_volume = self.box.log_width("beta")
        self.concentration = orthogonal(num_features, 2 * self.box.size, gain=0.01)
        self.action_shape: tuple[int, ...] = (self.box.size,)
        self.action_dtype = torch.float32
        self.mask_layout: tuple[int, ...] = ()
        self.mask_size = 0
        self.noise_size = 0

    @in_float32
    def forward(self, features: Tensor, mask: Tensor | None = None, noise: Noise | None = None) -> Beta:
        """Return a distribution over x (*batch, A), which `to_env` stretches, from features (*batch, F)."""
        a, b = F.softplus(self.concentration(features)).clamp(max=MOST_CERTAIN).chunk(2, dim=-1)
        return Beta(a, b, self.log_volume)

    def to_env(self, action: Tensor) -> Tensor:
        """Stretch x (*batch, A) in [0, 1] over the Box (*batch, *shape)."""
        return self.box.stretch(action)


BOX_HEADS: dict[str, type[GaussianHead] | type[SquashedHead] | type[BetaHead]] = {
    "gaussian": GaussianHead,
    "squashed": SquashedHead,
    "beta": BetaHead,
}


def _refuse_clip(settings: ModelConfig) -> None:
    if settings.bound == "clip":
        raise ConfigError(
            f"model.bound: clip needs distribution gaussian; {settings.distribution} never leaves the Box"
        )


def _inside(bound: np.ndarray, inwards: float) -> np.ndarray:
    """Round a bound to float32, towards the inside: the nearest float32 may lie outside a float64 Box."""
    flat = bound.ravel()
    with np.errstate(over="ignore"):  # a bound beyond float32 becomes infinite: no bound
        rounded = flat.astype(np.float32)
    outside = rounded < flat if inwards > 0 else rounded > flat
    return np.where(outside, np.nextafter(rounded, np.float32(inwards)), rounded)


def _few(numbers: Tensor) -> str:
    """Format at most four of the numbers."""
    return f"[{', '.join(f'{x:g}' for x in numbers[:4].tolist())}{', ...' if len(numbers) > 4 else ''}]"
