"""Running mean and variance, and the observation normaliser, which is part of the model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Mean and variance of all rows seen so far, in float64, merged batch by batch.

    Chan, Golub and LeVeque (1979), with n rows so far and m new ones:

        delta = mean_new - mean
        mean' = mean + delta * m / (n + m)
        M2'   = M2 + M2_new + delta^2 * n * m / (n + m),        var = M2 / n
    """

    mean: Tensor  # (*shape) float64
    squares: Tensor  # (*shape) float64  M2: sum of squared distances from the mean
    count: Tensor  # () float64, exact up to 2^53 rows (float32 would stop counting at 2^24)

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Merge rows (M, *shape) into the statistics; M may be 0."""
        if len(rows) == 0:
            return
        rows = rows.double()
        var, mean = torch.var_mean(rows, dim=0, correction=0)  # (*shape)
        count = self.count + len(rows)
        delta = mean - self.mean
        self.squares += var * len(rows) + delta**2 * (self.count * len(rows) / count)
        self.mean += delta * (len(rows) / count)
        self.count.copy_(count)

    @property
    def var(self) -> Tensor:
        """Population variance (*shape); 1 before the first row."""
        return torch.where(self.count > 0, self.squares / self.count.clamp(min=1.0), 1.0)


class ObsNormalizer(nn.Module):
    """Observation normaliser: (obs - mean) / std, clipped to [-clip, clip]. Only `refresh` changes the statistics.

    A policy must be trained with the statistics that it acted with, or the probability ratio is not 1 before the first
    gradient step. So `refresh` is called once, after each update.
    """

    center: Tensor  # (features) float32, in use
    scale: Tensor  # (features) float32, in use

    def __init__(self, num_features: int, clip: float) -> None:
        super().__init__()
        self.moments = RunningMoments((num_features,))
        self.clip = clip
        self.register_buffer("center", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise (..., features). A feature that never changed becomes 0."""
        return ((features - self.center) * self.scale).clamp_(-self.clip, self.clip)

    def in_numpy(self, rows: int) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function that normalises arrays (rows, features) on the CPU.

        For few rows it takes a fifth of the time of `forward`. It overwrites its last result.
        """
        center, scale, clip = self.center.numpy(), self.scale.numpy(), self.clip  # module attributes are slow
        out = np.empty((rows, len(center)), np.float32)

        def normalized(features: np.ndarray) -> np.ndarray:
            np.subtract(features, center, out=out)
            np.multiply(out, scale, out=out)
            np.maximum(out, -clip, out=out)
            return np.minimum(out, clip, out=out)

        return normalized

    def refresh(self, features: Tensor) -> None:
        """Merge the rows (M, features) that the policy saw, and use the new statistics from now on."""
        self.moments.update(features)
        self.center.copy_(self.moments.mean)
        self.scale.copy_((self.moments.var + 1e-8).rsqrt())
