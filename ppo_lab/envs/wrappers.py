"""What is put around N environments at once: the last few observations as one, and the time that is left.

Both are `ppo_lab.envs.Envs` around another, correct for both kinds of autoreset: an episode's first observation knows
nothing of the one before, and the final observation still belongs to the episode that ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor

from ppo_lab.config import Config
from ppo_lab.envs.contract import Action, Envs, EnvsWrapper, Obs, Step
from ppo_lab.envs.spaces import MASK_KEY, leaf_spaces
from ppo_lab.errors import ConfigError, EnvError

TIME_KEY = "time"
PLAIN_KEY = "obs"  # what an observation without keys is called once the time stands beside it
Channels = Literal["auto", "first", "last"]


def stacked_and_timed(envs: Envs, config: Config, name: str) -> Envs:
    """Wrap the environments as `env.frame_stack` and `env.time_aware` ask.

    Raises ConfigError, and closes them, if there is no time limit; `name`: what to call them.
    """
    settings = config.env
    try:
        if settings.frame_stack > 1:
            envs = FrameStack(envs, settings.frame_stack, config.model.channels)
        if settings.time_aware:
            limit = envs.max_episode_steps
            if limit is None:
                raise ConfigError(f"env.time_aware: {name} has no time limit; add TimeLimit to env.wrappers")
            envs = TimeAware(envs, limit)
    except BaseException:
        envs.close()
        raise
    return envs


class FrameStack(EnvsWrapper):
    """The last `size` observations as one, the oldest first; before an episode's start its first one is repeated.

    Images (H, W, C) or (C, H, W) are stacked along their channels, (H, W) along a new first axis, vectors end to end.
    Discrete observations become MultiDiscrete. The key "action_mask" stays the newest alone.
    """

    def __init__(self, envs: Envs, size: int, channels: Channels = "auto") -> None:
        """Take ownership of `envs`. channels: the axis of an image's channels; auto: the smaller of first and last."""
        if size < 2:
            raise EnvError(f"frame_stack: a stack has at least 2 observations, got {size}")
        super().__init__(envs)
        leaves = leaf_spaces(envs.observation_space)
        self._size = size
        self._axes = {key: _axis(leaf, channels) for key, leaf in leaves.items() if _stacks(key)}
        self._frames: dict[str, Tensor] = {}  # (size, N, *one) each, the oldest first
        stacked = {key: _stacked_space(leaf, size, self._axes[key]) if key in self._axes else leaf
                   for key, leaf in leaves.items()}  # fmt: skip
        self.observation_space = stacked.get("") or spaces.Dict(stacked, sort_keys=False)

    def reset(self, seed: int) -> Obs:
        """Start all N episodes; every frame of the stacks is the first observation."""
        obs = self.envs.reset(seed)
        self._frames = {key: _parts(obs)[key].expand(self._size, *_parts(obs)[key].shape).clone() for key in self._axes}
        return self._stack(obs)

    def step(self, action: Action) -> Step:
        """Act once in each environment."""
        step = self.envs.step(action)
        final, obs = _parts(step.final_obs), _parts(step.obs)
        for key, frames in self._frames.items():
            self._frames[key] = torch.cat([frames[1:], final[key].unsqueeze(0)])
        final_obs = self._stack(step.final_obs)
        begins = _begins(self.envs, step)
        for key, frames in self._frames.items():
            mask = begins.view(1, -1, *[1] * (frames.dim() - 2))
            self._frames[key] = torch.where(mask, obs[key].unsqueeze(0), frames)
        shown = self._stack(step.obs)
        # with next-step autoreset final_obs is obs, also in the row of the reset, which is no experience
        return step._replace(obs=shown, final_obs=shown if self.next_step_autoreset else final_obs)

    def own_state(self) -> dict[str, Any]:
        """Return the frames."""
        return {"frames": {key or PLAIN_KEY: one.clone() for key, one in self._frames.items()}}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Continue with those frames."""
        self._frames = {key: state["frames"][key or PLAIN_KEY].to(self.device, copy=True) for key in self._axes}

    def _stack(self, newest: Obs) -> Obs:
        """Return the frames as one observation (N, *stacked); what is not stacked is taken from `newest`."""
        parts: dict[str, Tensor] = {}
        for key, one in _parts(newest).items():
            if key not in self._frames:
                parts[key] = one
                continue
            axis, frames = self._axes[key], self._frames[key]
            parts[key] = frames.movedim(0, 1).contiguous() if axis is None else torch.cat(list(frames), dim=axis + 1)
        return parts.get("", parts)


class TimeAware(EnvsWrapper):
    """Adds the share of the time limit that is left, in [0, 1]: 1 at an episode's start, 0 at its cut-off.

    Without it an agent cannot know that the end is near, and values of equal observations differ (Pardo et al. 2018,
    "Time Limits in Reinforcement Learning"). A plain vector of floats gets one entry more, all others the key "time".
    """

    def __init__(self, envs: Envs, limit: int) -> None:
        """Take ownership of `envs`. limit: steps after which an episode is cut off."""
        if limit < 1:
            raise EnvError(f"time_aware: a time limit has at least 1 step, got {limit}")
        super().__init__(envs)
        self._limit = limit
        self._elapsed = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        leaves = leaf_spaces(envs.observation_space)
        if TIME_KEY in leaves:
            raise EnvError(f"time_aware: the observation has a key {TIME_KEY!r} already")
        plain = leaves.get("")
        self._append = isinstance(plain, spaces.Box) and len(plain.shape) == 1 and plain.dtype.kind == "f"
        if isinstance(plain, spaces.Box) and self._append:
            low, high = (
                np.append(end, np.asarray(value, end.dtype)) for end, value in ((plain.low, 0), (plain.high, 1))
            )
            self.observation_space = spaces.Box(low, high, dtype=plain.dtype.type)
        else:
            time = spaces.Box(0.0, 1.0, (1,), np.float32)
            named = {PLAIN_KEY: plain} if plain is not None else leaves
            self.observation_space = spaces.Dict({**named, TIME_KEY: time}, sort_keys=False)

    def reset(self, seed: int) -> Obs:
        """Start all N episodes, with all the time left."""
        obs = self.envs.reset(seed)
        self._elapsed.zero_()
        return self._with_time(obs)

    def step(self, action: Action) -> Step:
        """Act once in each environment."""
        step = self.envs.step(action)
        self._elapsed += 1
        begins = _begins(self.envs, step)
        final_obs = self._with_time(step.final_obs)
        self._elapsed.masked_fill_(begins, 0)
        obs = self._with_time(step.obs)
        return step._replace(obs=obs, final_obs=obs if self.next_step_autoreset else final_obs)

    def own_state(self) -> dict[str, Any]:
        """Return the steps since each episode's start."""
        return {"elapsed": self._elapsed.clone()}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Continue with those counts."""
        self._elapsed = state["elapsed"].to(self.device, copy=True)

    def _with_time(self, obs: Obs) -> Obs:
        left = (1 - self._elapsed / self._limit).clamp_min(0).unsqueeze(-1)  # (N, 1)
        if self._append:
            assert isinstance(obs, Tensor)
            return torch.cat([obs, left.to(obs.dtype)], dim=-1)  # (N, n + 1)
        return {**(obs if isinstance(obs, dict) else {PLAIN_KEY: obs}), TIME_KEY: left.float()}


def _begins(envs: Envs, step: Step) -> Tensor:
    """Return (N,) bool: `obs` of this step is the first of an episode."""
    if envs.next_step_autoreset:
        return ~step.valid
    done = envs.episode_done  # where only a life was lost the game continues
    return (step.terminated | step.truncated) if done is None else done


def _parts(obs: Obs) -> dict[str, Tensor]:
    return obs if isinstance(obs, dict) else {"": obs}


def _stacks(key: str) -> bool:
    return key.rpartition("/")[2] != MASK_KEY


def _axis(space: Space, channels: Channels) -> int | None:
    """Return the axis of one observation along which it is stacked; None: a new first one."""
    shape = space.shape or ()
    if len(shape) == 3 and isinstance(space, spaces.Box):
        last = shape[-1] < shape[0] if channels == "auto" else channels == "last"
        return 2 if last else 0
    return None if len(shape) in (0, 2) else 0


def _stacked_space(space: Space, size: int, axis: int | None) -> Space:
    """Return the space of `size` observations of a leaf stacked along an axis."""

    def stacked(array: np.ndarray) -> np.ndarray:
        return np.stack([array] * size) if axis is None else np.concatenate([array] * size, axis)

    if isinstance(space, spaces.Discrete):
        start = np.full(size, space.start, np.int64)
        return spaces.MultiDiscrete(np.full(size, space.n, np.int64), start=start)
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(stacked(space.nvec), start=stacked(space.start))
    if isinstance(space, spaces.MultiBinary):
        shape = stacked(np.zeros(space.shape)).shape
        return spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
    assert isinstance(space, spaces.Box)
    return spaces.Box(stacked(space.low), stacked(space.high), dtype=space.dtype.type)
