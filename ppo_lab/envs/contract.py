"""The contract between environments and everything else: `Envs`, the `Step` it returns, and `EnvsWrapper`.

Everything is batched over N environments and lies on one device. Our own batched programs, Gymnasium's single
environments (in this process or in workers) and third-party vector environments all implement it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Env, Space
from torch import Generator, Tensor, nn

from ppo_lab.errors import EnvError

Obs = Tensor | dict[str, Tensor]  # flat: nested Dict and Tuple spaces have keys "a/b"
Action = Tensor | dict[str, Tensor]  # a dictionary for Dict and Tuple action spaces, likewise flat
EnvFactory = Callable[[int], Env]  # the number of an environment -> the environment


class Step(NamedTuple):
    """The result of one action in each environment. All tensors on one device, first dimension N."""

    obs: Obs  # (N, *obs) what to act on next: already the new episode where one has ended
    reward: Tensor  # (N,) float32
    terminated: Tensor  # (N,) bool  the task ended: nothing comes after, no bootstrap
    truncated: Tensor  # (N,) bool  the episode was cut off before its end: bootstrap from final_obs
    final_obs: Obs  # (N, *obs) what the action led to; differs from obs only where an episode ended
    valid: Tensor  # (N,) bool  False: no experience in this row (the reset row of a next-step-autoreset environment)


class Envs(ABC):
    """N environments stepped together. Subclasses set the first four attributes and define `reset` and `step`.

    `step` takes actions in the environment's own range (already mapped into the Box, or counted from `Discrete.start`).
    Tensors in a Step may be reused by the next `step`: a caller that keeps them copies them.

    Everything else is optional and written out here with its default; `EnvsWrapper` forwards all of it.
    """

    num_envs: int  # N
    observation_space: Space  # of one environment; flat: a leaf, or a Dict of leaves (see `envs.spaces`)
    action_space: Space  # of one environment; flat
    device: torch.device

    # Episodes
    next_step_autoreset: bool = False  # True: the row after an ending is the reset; `valid` is False there
    max_episode_steps: int | None = None  # steps after which an episode is truncated; None: no limit
    longest_episode: int | None = None  # upper bound of its steps if the limit is not counted in steps
    episode_done: Tensor | None = None  # (N,) bool after a step, where it differs from terminated | truncated:
    # False where a lost life terminated the task and the game continues (Atari)

    # CUDA graphs. True: `step` never waits for the device, writes its memory in place (all of it is in `state_dict`),
    # draws random numbers from `generator` alone, and starts new episodes within the same step.
    capturable: bool = False
    generator: Generator

    running_statistics: str | None = None  # name of a wrapper inside that keeps running statistics
    frames_per_second: float | None = None  # playback speed of pictures from `frame`

    @abstractmethod
    def reset(self, seed: int) -> Obs:
        """Start all N episodes from one run seed; return the first observations (N, *obs)."""

    @abstractmethod
    def step(self, action: Any) -> Step:
        """Act once in each environment: (N,) int64 for Discrete, (N, *shape) for others, a dictionary for Dict."""

    def close(self) -> None:  # noqa: B027  # nothing to release is the default
        """Release windows and processes. Calling it twice is harmless."""

    # Resume
    def state_dict(self) -> dict[str, Any] | None:
        """Return everything that `load_state_dict` needs to continue exactly; None: not possible (now)."""
        return None

    def load_state_dict(self, state: Any) -> None:
        """Continue from a `state_dict`. Raise EnvError where that is not possible."""
        raise EnvError("these environments cannot save their state")

    def episodes_under_way(self) -> dict[str, Any] | None:
        """Return a cheaper `state_dict` that can be taken before every update; None: `state_dict` is cheap."""
        return None

    @property
    def lost(self) -> str | None:
        """Why `state_dict` cannot restore the unfinished episodes; None: it can."""
        return None

    def why_inexact_now(self) -> str | None:
        """Return why a replay from the first step would differ by now (`env.retry`); None: it would not."""
        return None

    def retries(self) -> int:
        """Return how many times an environment was recreated after an error (`env.retry`)."""
        return 0

    # Record
    def metrics(self) -> Mapping[str, float]:
        """Return numbers for the line of each update in the run's record, such as {"terrain/level": 3.0}.

        Called once after each update. They reach metrics.jsonl, TensorBoard and the dashboard. NaN is left out.
        """
        return {}

    def metrics_state(self) -> dict[str, Any] | None:
        """Return what `metrics` keeps of finished episodes, for a fork that does not load `state_dict`; or None."""
        return None

    def load_metrics_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a `metrics_state`."""
        raise EnvError("these environments have no metrics state")

    def learned(self, model: nn.Module) -> None:
        """Receive the actor-critic at the end of each update, e.g. to add it to a pool of opponents.

        Copy what you keep: the next update changes it in place. Do not change the model. Whatever this method changes
        in the environments belongs in `state_dict`.
        """
        return

    def ending_info(self) -> dict[str, Tensor]:
        """Return numbers (N,) about the episodes that ended in the last step, such as their cost."""
        return {}

    # Pictures
    def frame(self, index: int = 0) -> np.ndarray:
        """Draw environment `index`, (H, W, 3) uint8. Raise EnvError where `draws` is False."""
        raise EnvError(f"{type(self).__name__} cannot draw itself")

    @property
    def draws(self) -> bool:
        """Whether `frame` is defined."""
        return type(self).frame is not Envs.frame


class EnvsWrapper(Envs):
    """A wrapper of another `Envs`, to which it forwards everything. A subclass overrides what it changes.

    A wrapper with a memory of its own defines `own_state` and `load_own_state`; states are then saved with it.
    """

    def __init__(self, envs: Envs) -> None:
        """Take ownership: `close` closes `envs`."""
        self.envs = envs
        self.num_envs, self.device = envs.num_envs, envs.device
        self.observation_space, self.action_space = envs.observation_space, envs.action_space
        self.next_step_autoreset = envs.next_step_autoreset
        self.max_episode_steps, self.longest_episode = envs.max_episode_steps, envs.longest_episode
        self.running_statistics = envs.running_statistics
        self.frames_per_second = envs.frames_per_second

    # A wrapper makes new tensors in each step, so it is not capturable and does not need `generator`.

    @property
    def episode_done(self) -> Tensor | None:  # type: ignore[override]  # read only here
        """That of the wrapped environments."""
        return self.envs.episode_done

    def own_state(self) -> dict[str, Any]:
        """Return what this wrapper remembers of the unfinished episodes."""
        return {}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Continue from an `own_state`."""

    def reset(self, seed: int) -> Obs:
        """Start all N episodes from one run seed."""
        return self.envs.reset(seed)

    def step(self, action: Action) -> Step:
        """Act once in each environment."""
        return self.envs.step(action)

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state of the environments with that of this wrapper; None if they have none."""
        return self._with_own_state(self.envs.state_dict())

    def load_state_dict(self, state: Any) -> None:
        """Continue from a `state_dict`. Raise EnvError as the environments do."""
        self.envs.load_state_dict(state["envs"])
        self.load_own_state(state)

    def episodes_under_way(self) -> dict[str, Any] | None:
        """Return the cheaper state of the environments with that of this wrapper."""
        return self._with_own_state(self.envs.episodes_under_way())

    def _with_own_state(self, inner: dict[str, Any] | None) -> dict[str, Any] | None:
        return {"envs": inner, **self.own_state()} if inner else inner

    @property
    def lost(self) -> str | None:
        """That of the wrapped environments."""
        return self.envs.lost

    def why_inexact_now(self) -> str | None:
        """Return that of the wrapped environments."""
        return self.envs.why_inexact_now()

    def retries(self) -> int:
        """Return how many times an environment was recreated."""
        return self.envs.retries()

    def metrics(self) -> Mapping[str, float]:
        """Return the environments' metrics."""
        return self.envs.metrics()

    def metrics_state(self) -> dict[str, Any] | None:
        """Return that of the environments."""
        return self.envs.metrics_state()

    def load_metrics_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a `metrics_state`."""
        self.envs.load_metrics_state(state)

    def learned(self, model: nn.Module) -> None:
        """Pass the model to the environments."""
        self.envs.learned(model)

    def ending_info(self) -> dict[str, Tensor]:
        """Return that of the environments."""
        return self.envs.ending_info()

    def frame(self, index: int = 0) -> np.ndarray:
        """Draw environment `index`."""
        return self.envs.frame(index)

    @property
    def draws(self) -> bool:
        """Whether the environments can draw themselves."""
        return self.envs.draws
