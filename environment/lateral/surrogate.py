"""The default plant: a physics model of a car, without a download, tuned to respond like the challenge's network.

The command is a steering torque. In the bicycle model the aligning torque balances it, so in steady state lateral
acceleration, and not curvature, is proportional to it. The model, for u[t] the command of row t:

    u_d  = u[t - delay]                                      delay on the bus in s, interpolated between rows
    z   += (1 - exp(-0.1 / tau)) (u_d - z)                   power steering and tyre relaxation, tau = 0.045 + 0.9 / v
    y    = g(v) (z - friction tanh(z / 0.1)) + c roll        rack friction, slope of the road
    y    = 6 tanh(y / 6)                                     the tyres saturate
    w    = 0.967 w + 1.15 (0.001 + 0.00125 v) N(0, 1)        wind, camber, bumps: a slow random walk
    lat  = token(y + w)                                      quantised like the network's output

in m, s and m/s^2. With `randomise`, the parameters are drawn for each drive, so that a policy must handle different
cars: gain 0.9 to 1.12 times, tau 0.8 to 1.3 times, delay 0.12 to 0.24 s, friction 0.02 to 0.06, c 0.95 to 1.15.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ppo_lab.errors import EnvError

from .driver import gain
from .plants import Drive
from .rules import CONTROL_START, COST_END, LATACCEL_LIMIT, STEP_SECONDS

NOMINAL = {"gain": 1.0, "tau": 1.0, "delay": 0.20, "friction": 0.05, "roll": 1.05}
RANGES = {
    "gain": (0.90, 1.12),
    "tau": (0.8, 1.3),
    "delay": (0.12, 0.24),
    "friction": (0.02, 0.06),
    "roll": (0.95, 1.15),
}
LONGEST = 10  # rows of delay at most
SETTLING = 30  # rows before row 100 over which z settles; its slowest time constant is 3.5 rows
PERSISTENCE, GUSTS = 0.967, 1.15
SATURATION = 6.0  # m/s^2
TOKEN = 2 * LATACCEL_LIMIT / 1023  # m/s^2 between two bins


class Surrogate:
    """N cars with individual parameters. The module docstring has the model, `Plant` describes the methods.

    Args:
        randomise: Draw the parameters for each drive.
        car: Parameters that replace the nominal ones for all cars, such as {"delay": 0.5} (at most 1 s): for tests.

    Raises:
        EnvError: An unknown parameter, or a delay outside its range.
    """

    def __init__(
        self,
        num_envs: int,
        device: torch.device | None = None,
        randomise: bool = False,
        car: Mapping[str, float] | None = None,
    ) -> None:
        car = car or {}
        unknown = sorted(car.keys() - NOMINAL.keys())
        if unknown:
            raise EnvError(f"Surrogate: a car has no {unknown[0]!r}; it has {', '.join(NOMINAL)}")
        rows = car.get("delay", NOMINAL["delay"]) / STEP_SECONDS
        if not 0.0 <= rows <= LONGEST:
            raise EnvError(f"Surrogate: delay={rows * STEP_SECONDS:g}; it must be between 0 and 1 s")
        alike = {name: (value, value) for name, value in {**NOMINAL, **car}.items()}
        self._ranges = {name: RANGES[name] if randomise and name not in car else alike[name] for name in NOMINAL}
        self._backs = range(min(1, math.floor(rows)), max(3, math.ceil(rows)) + 1)  # RANGES: u[t-1], u[t-2], u[t-3]
        block = torch.zeros(len(NOMINAL) + 2, num_envs, dtype=torch.float64, device=device)
        self.memory = dict(zip([*NOMINAL, "z", "w"], block, strict=True))

    def begin(self, drive: Drive, generator: torch.Generator) -> None:
        """Draw the cars, and let z settle over the recorded steering before row 100."""
        for name, (low, high) in self._ranges.items():
            if low < high:
                self.memory[name].uniform_(low, high, generator=generator)
            else:
                self.memory[name].fill_(low)
        self._plan(drive)
        self._z[:] = drive.actions[CONTROL_START - SETTLING - 3]
        for t in range(CONTROL_START - SETTLING, CONTROL_START):
            self._turn(drive, t)
        # the residual of the model in the last recorded row is the initial disturbance
        last = CONTROL_START - 1
        self._own["w"][:] = drive.lataccel[last] - self._settled(drive, last)
        self._disturb(drive)

    def prepare(self, drive: Drive) -> None:
        """Precompute what does not depend on the steering, for all rows at once."""
        self._plan(drive)
        self._disturb(drive)

    def next_lataccel(self, drive: Drive, t: int) -> Any:
        """Return (N,) m/s^2, quantised to the bins of the tokens."""
        self._turn(drive, t)
        y = (self._settled(drive, t) + self._w[t - CONTROL_START + 1]).clip(-LATACCEL_LIMIT, LATACCEL_LIMIT)
        return drive.xp.ceil((y + LATACCEL_LIMIT) / TOKEN) * TOKEN - LATACCEL_LIMIT

    def _plan(self, drive: Drive) -> None:
        self._own = {name: drive.array(tensor) for name, tensor in self.memory.items()}
        self._z = self._own["z"]
        own, v = self._own, drive.v.clip(0.0, 100.0)
        self._follow = 1 - drive.xp.exp(-STEP_SECONDS / (own["tau"] * (0.045 + 0.9 / v.clip(3.0, 100.0))))  # (T, N)
        self._gain = own["gain"] * gain(v)  # (T, N)
        self._slope = own["roll"] * drive.roll  # (T, N)
        rows = own["delay"] / STEP_SECONDS  # (N,)
        self._late = [(back, (1 - abs(rows - back)).clip(0.0, 1.0)) for back in self._backs]  # weights of u[t - back]

    def _turn(self, drive: Drive, t: int) -> None:
        (back, weight), *others = self._late
        u = weight * drive.actions[t - back]
        for back, weight in others:
            u = u + weight * drive.actions[t - back]
        self._z += self._follow[t] * (u - self._z)

    def _settled(self, drive: Drive, t: int) -> Any:
        """Return y (N,) without the disturbance."""
        tanh, z = drive.xp.tanh, self._z
        y = self._gain[t] * (z - self._own["friction"] * tanh(z * 10)) + self._slope[t]
        return SATURATION * tanh(y / SATURATION)

    def _disturb(self, drive: Drive) -> None:
        """Compute the whole disturbance (401, N) from its value in row 99; draws of 0.5 mean no noise."""
        draws = drive.tensors["draws"].clamp(min=2.0**-53)
        size = GUSTS * (0.001 + 0.00125 * drive.v[CONTROL_START:COST_END].clip(0.0, 100.0))
        path = [self._own["w"]]
        for gust in size * drive.array(torch.special.ndtri(draws)):
            path.append(PERSISTENCE * path[-1] + gust)
        self._w = drive.xp.stack(path)
