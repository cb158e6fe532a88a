"""The plant interface: the model of car and road that turns steering into lateral acceleration."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .routes import Routes
from .rules import CONTROL_START, EPISODE_STEPS, ROWS


class Drive:
    """The state of N drives: their routes, actions and lateral accelerations, all (T, N) float64, time first.

    On a CPU the arrays are NumPy views of the tensors, unless `use_numpy` is False: an operation on a few numbers costs
    a quarter of torch's time. `xp` is the module whose functions take the arrays, `numpy` or `torch`.
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
        self.actions = arrays["actions"]  # steering applied: before row 100 the recorded one
        self.lataccel = arrays["lataccel"]  # resulting lateral acceleration, m/s^2: before row 100 the target
        self.draws = arrays["draws"]  # (400, N) uniform in [0, 1): the noise of rows 100 to 499

    def array(self, tensor: Tensor) -> Any:
        """Return the tensor as `xp` takes it: itself, or a NumPy view of its memory."""
        return tensor.numpy() if self.xp is np else tensor

    def start(self, routes: Routes) -> None:
        """Place the cars at row 100 of N routes."""
        for name in ("target", "roll", "v", "a"):
            self.tensors[name].copy_(torch.from_numpy(getattr(routes, name)))
        self.tensors["actions"].copy_(torch.from_numpy(routes.steer))
        self.lataccel[:CONTROL_START] = self.target[:CONTROL_START]


class Plant(Protocol):
    """The interface of the three plants: one step function, and methods to start, save and load them."""

    memory: dict[str, Tensor]  # state that `next_lataccel` changes or `begin` draws; last dimension N

    def begin(self, drive: Drive, generator: torch.Generator) -> None:
        """Start the plant for new drives, which are at row 100."""
        ...

    def prepare(self, drive: Drive) -> None:
        """Recompute what follows from `drive` and `memory` after they were loaded."""
        ...

    def next_lataccel(self, drive: Drive, t: int) -> Any:
        """Compute the lateral acceleration (N,), m/s^2, of row t, after the action of row t was set.

        It depends on actions up to t, states up to t, lateral accelerations up to t-1 and the noise of row t. The
        environment limits its change to 0.5 m/s^2.
        """
        ...
