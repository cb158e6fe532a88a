"""What a plant is: the car and the road, which turn steering into lateral acceleration."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from environment.lateral.routes import Routes
from environment.lateral.rules import CONTROL_START, EPISODE_STEPS, ROWS


class Drive:
    """N cars under way: their routes and what has happened, all (T, N) float64, time first.

    On a CPU the arrays are NumPy views of the tensors, unless `use_numpy` is False: on a few numbers an operation costs
    a quarter there. `xp` is the module whose functions take them, `numpy` or `torch`.
    """

    def __init__(self, num_envs: int, device: torch.device, use_numpy: bool | None = None) -> None:
        def rows(number: int) -> Tensor:
            return torch.zeros(number, num_envs, dtype=torch.float64, device=device)

        self.num_envs, self.device = num_envs, device
        self.tensors = {name: rows(ROWS) for name in ("target", "roll", "v", "a", "actions", "lataccel")}
        self.tensors["draws"] = rows(EPISODE_STEPS)
        on_cpu = device.type == "cpu"
        self.xp: ModuleType = np if (on_cpu if use_numpy is None else use_numpy) else torch
        arrays = {name: self.array(tensor) for name, tensor in self.tensors.items()}
        self.target, self.roll, self.v, self.a = (arrays[name] for name in ("target", "roll", "v", "a"))  # of the route
        self.actions = arrays["actions"]  # steering applied: before row 100 what was recorded
        self.lataccel = arrays["lataccel"]  # what came of it: before row 100 the target, m/s^2
        self.draws = arrays["draws"]  # (400, N) uniform in [0, 1): the noise of rows 100 to 499

    def array(self, tensor: Tensor) -> Any:
        """The tensor as `xp` takes it: itself, or a NumPy view of its memory."""
        return tensor.numpy() if self.xp is np else tensor

    def start(self, routes: Routes) -> None:
        """Place the cars at row 100 of N routes."""
        for name in ("target", "roll", "v", "a"):
            self.tensors[name].copy_(torch.from_numpy(getattr(routes, name)))
        self.tensors["actions"].copy_(torch.from_numpy(routes.steer))
        self.lataccel[:CONTROL_START] = self.target[:CONTROL_START]


class Plant(Protocol):
    """The one function behind which the three plants stand, and what it needs to be begun, saved and loaded."""

    memory: dict[str, Tensor]  # what changes in `next_lataccel`, or was drawn in `begin`; last dimension N

    def begin(self, drive: Drive, generator: torch.Generator) -> None:
        """New drives have been placed at row 100."""
        ...

    def prepare(self, drive: Drive) -> None:
        """Compute again what follows from `drive` and `memory`: they were loaded."""
        ...

    def next_lataccel(self, drive: Drive, t: int) -> Any:
        """(N,) the lateral acceleration (m/s^2) that row t is heading for, with the action of row t in place.

        It follows from actions up to t, states up to t, lateral accelerations up to t-1 and the noise of row t. The
        environment limits its change to 0.5 m/s^2.
        """
        ...
