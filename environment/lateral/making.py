"""Make plants and routes from the names used in settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ppo_lab.errors import EnvError

from .plants import Plant
from .routes import Routes, read_routes
from .surrogate import Surrogate
from .synthetic import synthetic_routes
from .tinyphysics import OnnxPlant, TorchPlant


def load_routes(routes: str | Path, segments: Sequence[int] | None = None, seed: int = 0) -> Routes:
    """Make synthetic routes or read those of a folder; see `VectorizedLateralControlEnv`. Raises EnvError."""
    if segments is not None and (len(segments) != 2 or not 0 <= segments[0] < segments[1]):
        raise EnvError(f"LateralControl: segments={list(segments)}; required: two numbers, 0 <= start < stop")
    if str(routes) != "synthetic":
        return read_routes(routes, segments)
    start, stop = segments or (0, 1000)
    return synthetic_routes(stop, seed).take(np.arange(start, stop))


def make_plant(
    name: str,
    num_envs: int,
    device: torch.device,
    model: str | Path | None = None,
    randomise: bool = False,
    expected: bool = False,
    precision: str = "float32",
) -> Plant:
    """Make the plant of this name for N cars. Raises EnvError."""
    if name == "surrogate":
        return Surrogate(num_envs, device, randomise)
    if model is None:
        raise EnvError(f"LateralControl: plant={name!r} needs model, the path of the challenge's tinyphysics.onnx")
    if name == "torch":
        return TorchPlant(model, device, getattr(torch, precision), expected)
    if device.type != "cpu":
        raise EnvError(f"LateralControl: plant='onnx' runs on the CPU, not on {device}; use plant='torch'")
    return OnnxPlant(model, expected)
