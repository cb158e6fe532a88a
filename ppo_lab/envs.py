"""What a set of environments is to the trainer: the `Envs` protocol, its `Step`, and `make_envs`.

Everything is batched over N environments and lies on one device. What differs between our own batched programs,
Gymnasium's single environments (here or in subprocesses) and third-party vector environments stays behind this
protocol.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple, Protocol

import torch
from gymnasium import Space
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from ppo_lab.adapters.ids import call_creator, find_spec, make_single, make_vector
from ppo_lab.adapters.loop import describe_error, one_line
from ppo_lab.config import Config
from ppo_lab.errors import ConfigError, EnvError

Obs = Tensor

OBS_DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "bool")
ACTION_DTYPES = ("float32", "float64")


class Step(NamedTuple):
    """What one action of each environment led to. All tensors on one device, first dimension N."""

    obs: Obs  # (N, *obs) what to act on next: already the new episode where one has ended
    reward: Tensor  # (N,) float32
    terminated: Tensor  # (N,) bool  the task ended: nothing comes after, no bootstrap
    truncated: Tensor  # (N,) bool  it was cut off: the episode would have gone on
    final_obs: Obs  # (N, *obs) what the action led to; differs from obs only where an episode ended
    valid: Tensor  # (N,) bool  False: no experience in this row (the reset row of a next-step-autoreset environment)


class Envs(Protocol):
    """N environments stepped together.

    `step` takes actions as the environment knows them (already mapped into the Box, or starting at `Discrete.start`).
    Tensors in a Step may be reused by the next `step`: a caller that keeps them copies them.
    """

    num_envs: int
    observation_space: Space  # of one environment
    action_space: Space  # of one environment
    device: torch.device
    next_step_autoreset: (
        bool  # True: the row after an ending is the reset, `valid` is False there and obs is still final
    )

    def reset(self, seed: int) -> Obs:
        """Start all N episodes from one run seed; returns the first observations (N, *obs)."""
        ...

    def step(self, action: Tensor) -> Step:
        """Act once in each environment: action is (N,) for Discrete, (N, *shape) for Box."""
        ...

    def close(self) -> None:
        """Give back what the environments hold (windows, processes). Twice is harmless."""
        ...


def make_envs(config: Config, device: torch.device | str | None = None) -> Envs:
    """The N environments that config.env asks for. device: where their tensors lie; None: the CPU.

    Our own environments are one batched program on the device. All others step on the CPU: with `vector` as the id's
    own vector environment, else one by one, in this process or in `workers` subprocesses with the same results.
    Raises ConfigError or EnvError with one line: what is wrong with the id, its kwargs or its spaces.
    """
    from environment import BATCHED  # all of these stand on this file
    from ppo_lab.adapters.single import SingleEnvs
    from ppo_lab.adapters.vector import VectorEnvs
    from ppo_lab.adapters.workers import WorkerEnvs

    settings = config.env
    place = torch.device("cpu" if device is None else device)
    if settings.workers and (settings.vector or settings.id in BATCHED):
        raise ConfigError(f"env.workers: {settings.id} is stepped as one batched program; set env.workers to 0")
    if settings.id in BATCHED:
        given = {"num_envs": settings.num_envs, "device": place}
        ours: Envs = call_creator(settings.id, BATCHED[settings.id], settings.kwargs, given)
        return ours
    spec = find_spec(settings.id, settings.allow_import, BATCHED)
    if settings.vector:
        return VectorEnvs(make_vector(spec, settings.num_envs, settings.kwargs), place)
    if settings.workers:
        return WorkerEnvs(spec, settings.kwargs, settings.num_envs, settings.workers, place)
    with ExitStack() as undo:
        envs = []
        for _ in range(settings.num_envs):
            envs.append(make_single(spec, settings.kwargs))
            undo.callback(envs[-1].close)
        made = SingleEnvs(envs, place)
        undo.pop_all()  # all went well: now they are closed with `made`
        return made


def why_not_deterministic(config: Config) -> str | None:
    """Why replaying its actions would not lead a third-party environment back to where it was; None if it would."""
    from environment import BATCHED
    from ppo_lab.adapters.replay import why_not_deterministic as probe

    settings = config.env
    if settings.id in BATCHED:
        return None
    if settings.vector:
        return f"the vector environment of {settings.id} cannot tell its state, and its episodes have no seeds"
    spec = find_spec(settings.id, settings.allow_import, BATCHED)
    try:
        return probe(lambda: make_single(spec, settings.kwargs))
    except Exception as error:
        return f"trying whether {settings.id} is deterministic failed: {describe_error(error)}"


def check_spaces(observation_space: Space, action_space: Space, name: str) -> None:
    """Raises EnvError if the environment `name` has a space that there is no network or distribution for."""
    for what, space, dtypes in (
        ("observation", observation_space, OBS_DTYPES),
        ("action", action_space, ACTION_DTYPES),
    ):
        box = isinstance(space, Box) and str(space.dtype) in dtypes and 0 not in space.shape
        if not box and not isinstance(space, Discrete):
            allowed = f"Discrete, and Box of any shape that holds a number, of dtype {', '.join(dtypes)}"
            raise EnvError(f"{name}: {what} space {one_line(space, 120)} is not supported; supported: {allowed}")
