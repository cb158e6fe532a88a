"""LateralControl-v0: steer a car at given speed so that its lateral acceleration follows the road ahead.

The task of comma.ai's controls challenge (v2), in its units: 10 rows a second, a steering command within +-2, lateral
acceleration in m/s^2. The car responds with delay and noise, and differently at each speed.

- Observation: "compact", (41,) float32, hand-picked features scaled to about 1 and clipped to +-5, or "full256",
  (256,), nearly all that an official controller gets. `environment.lateral.driver` is the specification. Speed and
  road are known for the next 4.9 s; the steering of the first 100 rows is hidden, as in the challenge.
- Action: Box(-1, 1, (1,)): "delta" changes the last command by 0.2 x; "absolute" is 2 x; "pid_residual" is PID's
  command plus x.
- Reward: -min(5000 (target - lataccel)^2 + 100 (change of lataccel / 0.1 s)^2, 20000) / 100, for the lateral
  acceleration after the action; the change into the first row does not count. Without the bound, -100 times its mean
  is the official cost, except that jerk is averaged over 400 rows instead of 399.
- Terminated: after 400 steps, rows 100 to 499 of the route: the cost ends there. Never truncated. All N cars start and
  end together.
- Reset: the next routes of a shuffled order, fresh noise, and with `randomise` fresh cars. Each car starts at row 100,
  with the recorded rows before it as its past.

Plants (`plant`): "surrogate", physics that needs no download (`environment.lateral.surrogate`); "onnx" and "torch", the
official network from the user's tinyphysics.onnx (`model`). A cost on the surrogate is not a score of the challenge.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ppo_lab.envs import Envs, Step, snapshots
from ppo_lab.envs.gymnasium_view import SingleView
from ppo_lab.errors import EnvError

from .lateral import driver, picture
from .lateral.controllers import PidController
from .lateral.making import load_routes, make_plant
from .lateral.plants import Drive
from .lateral.rules import CONTEXT, CONTROL_START, COST_END, EPISODE_STEPS, PREVIEW, STEP_SECONDS, Cost, cost
from .lateral.simulate import Noise, advance, noise_draws

WORST = 20_000.0  # bound on the cost of a step: once off the road, more distance adds no information
CHOICES = {
    "plant": ("surrogate", "onnx", "torch"),
    "observation": tuple(driver.SIZES),
    "action": ("delta", "absolute", "pid_residual"),
    "noise": ("fresh", "official", "expected"),
    "precision": ("float32", "bfloat16"),
}


class VectorizedLateralControlEnv(Envs):
    """N cars as one batched program over (T, N): `ppo_lab.envs.Envs`, with same-step reset.

    Args:
        num_envs: N.
        device: Device of all tensors.
        plant, model: The car model; the path of tinyphysics.onnx for "onnx" and "torch".
        routes: "synthetic", or the folder with the challenge's CSV files.
        segments: (start, stop) of the sorted files, or of the synthetic routes; None: all files, 1000 synthetic ones.
        routes_seed: Seed of the synthetic routes.
        noise: "fresh" in every drive; "official", determined by each route's key; "expected", no noise.
        randomise: Draw the surrogate's parameters for each drive. False: always the nominal car.
        observation, action: See above.
        precision: Number format of the torch plant's network.
        use_numpy: Compute with NumPy instead of torch. None: True on a CPU.

    Raises:
        EnvError: An argument is outside its range, routes or a model cannot be read, or a package is missing.
    """

    frames_per_second = round(1 / STEP_SECONDS)
    max_episode_steps = EPISODE_STEPS

    def __init__(
        self,
        num_envs: int,
        device: str | torch.device = "cpu",
        plant: str = "surrogate",
        model: str | Path | None = None,
        routes: str | Path = "synthetic",
        segments: Sequence[int] | None = None,
        routes_seed: int = 0,
        noise: Noise = "fresh",
        randomise: bool = True,
        observation: Literal["compact", "full256"] = "compact",
        action: Literal["delta", "absolute", "pid_residual"] = "delta",
        precision: str = "float32",
        use_numpy: bool | None = None,
    ) -> None:
        given = {"plant": plant, "observation": observation, "action": action, "noise": noise, "precision": precision}
        for name, value in given.items():
            if value not in CHOICES[name]:
                raise EnvError(f"LateralControl: {name}={value!r}; allowed are {', '.join(CHOICES[name])}")
        self.num_envs, self.device = num_envs, torch.device(device)
        if num_envs < 1:
            raise EnvError(f"LateralControl: num_envs={num_envs}; it must be >= 1")
        if use_numpy and self.device.type != "cpu":
            raise EnvError(f"LateralControl: use_numpy=True with device={str(device)!r}; NumPy needs 'cpu'")
        self.pool = load_routes(routes, segments, routes_seed)
        self.plant = make_plant(plant, num_envs, self.device, model, randomise, noise == "expected", precision)
        self.drive = Drive(num_envs, self.device, use_numpy)
        self.last_cost: Cost | None = None  # of the last completed drives, (N,) each
        self._observation, self._action, self._noise = observation, action, noise
        size = driver.SIZES[observation]
        self.observation_space = spaces.Box(-5.0, 5.0, (size,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.generator = torch.Generator(self.device)
        self._allocate(size)

    def _allocate(self, size: int) -> None:
        def tensor(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=self.device)

        N, drive = self.num_envs, self.drive
        self._memory = {**drive.tensors, "seen": torch.zeros_like(drive.tensors["actions"]), "integral": tensor(N)}
        # (T, N) steering known to an official controller; (N,) leaky integral of the error before this row
        self._seen, self._integral = drive.array(self._memory["seen"]), drive.array(self._memory["integral"])
        self._order = torch.zeros(self.pool.num_routes, dtype=torch.int64)  # order in which routes are driven
        self._clock = torch.zeros(2, dtype=torch.int64)  # the row to act in; how many routes of the order are driven
        self._memory |= {"order": self._order, "clock": self._clock}
        self._memory |= {f"plant_{name}": tensor for name, tensor in self.plant.memory.items()}
        self._pid = PidController()
        self.obs, self._final_obs = tensor(2, N, size, dtype=torch.float32)
        no, yes = tensor(N, dtype=torch.bool), ~tensor(N, dtype=torch.bool)
        reward = tensor(N, dtype=torch.float32)
        self._under_way = Step(self.obs, reward, no, no, self.obs, yes)
        self._ending = Step(self.obs, reward, yes, no, self._final_obs, yes)

    def reset(self, seed: int) -> Tensor:
        """Start N drives; equal seeds on equal devices give equal drives. Returns obs (N, 41 or 256)."""
        self.generator.manual_seed(seed)
        self._clock[1] = self.pool.num_routes  # marks all routes as driven, so that a new order is drawn
        self._start()
        return self.obs

    def step(self, action: Tensor) -> Step:
        """Steer every car for 0.1 s: action (N, 1)."""
        drive, t = self.drive, int(self._clock[0])
        x = drive.array(action[:, 0].double())
        before = drive.lataccel[t - 1]
        self._seen[t] = driver.steer(self._action, x, self._seen[t - 1], self._pid_command)
        advance(drive, self.plant, t, self._seen[t])
        error, change = drive.target[t] - drive.lataccel[t], drive.lataccel[t] - before
        paid = 5000.0 * error * error
        if t > CONTROL_START:
            paid = paid + (100.0 / STEP_SECONDS**2) * change * change
        self._under_way.reward.copy_(torch.as_tensor(paid.clip(0.0, WORST) / -100.0))
        self._integral[:] = driver.integrate(self._integral, drive.target[t] - before)
        self._clock[0] = t + 1
        if t + 1 < COST_END:
            self._look(self.obs)
            return self._under_way
        self._look(self._final_obs)
        self.last_cost = cost(drive.tensors["target"], drive.tensors["lataccel"])
        self._start()
        return self._ending

    def ending_info(self) -> dict[str, Tensor]:
        """Return `lateral_cost`, `jerk_cost`, `total_cost`, (N,) each, of the last completed drives; {} before any."""
        if self.last_cost is None:
            return {}
        return {f"{name}_cost": value for name, value in self.last_cost._asdict().items()}

    def _start(self) -> None:
        routes = self.pool.take(self._next_routes())
        drive = self.drive
        drive.start(routes)
        if self._noise == "fresh":
            drive.tensors["draws"].uniform_(generator=self.generator)
        else:
            drive.tensors["draws"].copy_(torch.from_numpy(noise_draws(routes, self._noise)))
        self.plant.begin(drive, self.generator)
        past = slice(CONTROL_START)
        self._seen[past] = driver.feedforward(drive.target[past], drive.roll[past], drive.v[past])
        self._integral[:] = 0.0
        for t in range(CONTEXT, CONTROL_START):  # rows in which an official controller only observes
            error = drive.target[t] - drive.lataccel[t - 1]
            self._integral[:] = driver.integrate(self._integral, error)
        self._clock[0] = CONTROL_START
        self._restart_pid()
        self._look(self.obs)

    def _next_routes(self) -> np.ndarray:
        """Return the indices (N,) of the routes to drive: each route of the pool once before any is repeated."""
        chosen: list[int] = []
        while len(chosen) < self.num_envs:
            driven = int(self._clock[1])
            if driven >= len(self._order):
                order = torch.randperm(len(self._order), generator=self.generator, device=self.device)
                self._order.copy_(order)
                driven = 0
            more = self._order[driven : driven + self.num_envs - len(chosen)].tolist()
            self._clock[1] = driven + len(more)
            chosen += more
        return np.array(chosen)

    def _restart_pid(self) -> None:
        """Reset PID and update it with every row up to this one."""
        self._pid.reset(self.num_envs)
        self._pid_command: Any = 0.0
        if self._action == "pid_residual":
            for t in range(CONTEXT, int(self._clock[0])):
                self._pid.update(self.drive.target[t : t + 1], None, None, None, self.drive.lataccel[t - 1])

    def _look(self, obs: Tensor) -> None:
        """Write the observations of the current row into obs (N, 41 or 256)."""
        drive, t = self.drive, int(self._clock[0])
        ahead, past = slice(t, t + PREVIEW), slice(t - CONTEXT, t)
        road = (drive.target[ahead], drive.roll[ahead], drive.v[ahead], drive.a[ahead])
        see = driver.compact if self._observation == "compact" else driver.full256
        obs.copy_(torch.as_tensor(see(drive.xp, *road, drive.lataccel[past], self._seen[past], self._integral)).T)
        if self._action == "pid_residual":
            self._pid_command = self._pid.update(*road, drive.lataccel[t - 1])

    def state_dict(self) -> dict[str, Tensor]:
        """Return all the next step depends on: the drives (T, N), the cars, the order of the routes, `generator`."""
        return snapshots.save(self._memory, self.generator)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict` as if never stopped, `obs` included. Raises EnvError if it does not fit."""
        snapshots.load("LateralControl", self._memory, self.generator, state)
        self.plant.prepare(self.drive)
        self._restart_pid()
        self._look(self.obs)

    def frame(self, index: int = 0) -> np.ndarray:
        """Draw car `index` as (200, 300, 3) uint8 RGB: 3 s back and 4.9 s ahead."""
        target, lataccel, actions = (
            self.drive.tensors[name][:, index].cpu().numpy() for name in ("target", "lataccel", "actions")
        )
        return picture.draw(target, lataccel, actions, row=int(self._clock[0]))

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class LateralControlEnv(SingleView):
    """One car as a gymnasium.Env. Keyword arguments are those of `VectorizedLateralControlEnv`.

    At the end of a drive `info` holds `lateral_cost`, `jerk_cost` and `total_cost`.
    """

    def __init__(self, render_mode: str | None = None, **kwargs: Any) -> None:
        super().__init__("ppo_lab/LateralControl-v0", render_mode, **kwargs)
