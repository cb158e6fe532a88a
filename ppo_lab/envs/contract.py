"""What a set of environments is to the trainer: the `Envs` protocol and its `Step`.

Everything is batched over N environments and lies on one device. What differs between our own batched programs,
Gymnasium's single environments (here or in subprocesses) and third-party vector environments stays behind this
protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from gymnasium import Env, Space
from torch import Tensor

Obs = Tensor | dict[str, Tensor]  # flat: nested Dict and Tuple spaces have keys "a/b"
Action = Tensor | dict[str, Tensor]  # a dictionary for Dict and Tuple action spaces, likewise flat
EnvFactory = Callable[[int], Env]  # the number of an environment -> the environment


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

    Some have more, to be asked for with getattr: `state_dict()` and `load_state_dict()`; `metrics()`, numbers by name
    for the line of each update ("terrain/level": 3.0), asked for once an update; `max_episode_steps`, None where there
    is no limit; and `episode_done`, (N,) bool after a step: the episode really ended. Where it is None or
    missing, terminated | truncated says so. They differ in Atari games where a lost life terminates the task.
    `episodes_under_way()`, a `state_dict()` quick enough for every update; `lost` and `why_inexact_now()`, why the run
    cannot be resumed or repeated exactly from here (None: it can).
    `capturable`, True where a CUDA graph can hold `step`: it asks the device for nothing, writes what it remembers in
    place (`state_dict()` has all of it), draws from `generator` alone, and starts episodes in the same step.
    """

    num_envs: int
    observation_space: Space  # of one environment; flat: a leaf, or a Dict of leaves (see flat_spaces)
    action_space: Space  # of one environment; flat
    device: torch.device
    next_step_autoreset: (
        bool  # True: the row after an ending is the reset, `valid` is False there and obs is still final
    )

    def reset(self, seed: int) -> Obs:
        """Start all N episodes from one run seed; returns the first observations (N, *obs)."""
        ...

    def step(self, action: Action) -> Step:
        """Act once in each environment: (N,) int64 for Discrete, (N, *shape) for the others, a dictionary for Dict."""
        ...

    def close(self) -> None:
        """Give back what the environments hold (windows, processes). Twice is harmless."""
        ...
