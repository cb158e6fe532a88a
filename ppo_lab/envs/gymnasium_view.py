"""Our batched environments as Gymnasium sees them: one pair of views, single and vector, over any of them.

They copy everything into NumPy, so what a caller keeps stays as it was. Training here uses the programs themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Dict
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from ppo_lab.envs.registry import BATCHED
from ppo_lab.errors import EnvError


class SingleView(gymnasium.Env[Any, Any]):
    """One environment, Gymnasium's way: `step` returns the observation the action led to, and `reset` is the caller's.

    `render` draws the present state; right after an ending that is already the first one of the next episode.

    Args:
        env_id: A key of `registry.BATCHED`.
        render_mode: None, or "rgb_array" where the environment can draw itself.
        kwargs: For the batched class, such as `device`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 - Gymnasium reads it from the class

    def __init__(self, env_id: str, render_mode: str | None = None, **kwargs: Any) -> None:
        self.envs = _build(env_id, 1, render_mode, kwargs)
        self.metadata = _metadata(self.envs)
        self.render_mode = render_mode
        self.observation_space, self.action_space = self.envs.observation_space, self.envs.action_space
        self._ended = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; without a seed the stream of random numbers goes on. EnvError for any option."""
        super().reset(seed=seed)
        obs = self.envs.reset(_run_seed(seed, options, self.np_random))
        self._ended = False
        return _observation(obs, self.observation_space, 0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act once. EnvError if the episode has ended and nobody called `reset`."""
        if self._ended:
            raise EnvError("this episode has ended, or none has begun: call reset() before step()")
        step = self.envs.step(_tensors(action, self.envs.device, single=True))
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        self._ended = terminated or truncated
        obs = _observation(step.final_obs, self.observation_space, 0)
        info = _ending_info(self.envs, 0) if self._ended else {}
        return obs, float(step.reward[0]), terminated, truncated, info

    def render(self) -> Any:
        """Return the picture (H, W, 3) uint8, or None without a render mode."""
        return self.envs.frame(0) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Give back what the environment holds."""
        self.envs.close()


class VectorView(VectorEnv[Any, Any, np.ndarray]):
    """N environments, Gymnasium's way, with autoreset mode SAME_STEP.

    Where an episode ended, `infos["final_obs"][i]` and `infos["final_info"]` hold what the action led to, with the
    masks `_final_obs` and `_final_info`, as in `gymnasium.vector.SyncVectorEnv`.

    Args:
        num_envs: N.
        env_id, render_mode, kwargs: As for `SingleView`.
    """

    def __init__(self, num_envs: int, env_id: str, render_mode: str | None = None, **kwargs: Any) -> None:
        self.envs = _build(env_id, num_envs, render_mode, kwargs)
        self.metadata = {**_metadata(self.envs), "autoreset_mode": AutoresetMode.SAME_STEP}
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = self.envs.observation_space, self.envs.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start N episodes; without a seed the stream of random numbers goes on. EnvError for any option."""
        super().reset(seed=seed)
        obs = self.envs.reset(_run_seed(seed, options, self.np_random))
        return _observation(obs, self.single_observation_space), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act once in each environment."""
        step = self.envs.step(_tensors(actions, self.envs.device))
        reward, terminated, truncated = (_numpy(x) for x in (step.reward, step.terminated, step.truncated))
        space, infos = self.single_observation_space, dict[str, Any]()
        for i in np.flatnonzero(terminated | truncated).tolist():
            ended = {"final_obs": _observation(step.final_obs, space, i), "final_info": _ending_info(self.envs, i)}
            infos = self._add_info(infos, ended, i)
        return _observation(step.obs, space), reward, terminated, truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        """Return one picture for each environment, or None without a render mode."""
        return tuple(self.envs.frame(i) for i in range(self.num_envs)) if self.render_mode == "rgb_array" else None

    def close_extras(self, **kwargs: Any) -> None:
        """Give back what the environments hold."""
        self.envs.close()


def _build(env_id: str, num_envs: int, render_mode: str | None, kwargs: dict[str, Any]) -> Any:
    if env_id not in BATCHED:
        raise EnvError(f"no environment {env_id!r}; ours are {', '.join(BATCHED)}")
    envs = BATCHED[env_id](num_envs=num_envs, **kwargs)
    allowed = _metadata(envs)["render_modes"]
    if render_mode is not None and render_mode not in allowed:
        envs.close()
        raise EnvError(f"{env_id}: render_mode={render_mode!r}; allowed are {[None, *allowed]}")
    return envs


def _metadata(envs: Any) -> dict[str, Any]:
    return {"render_modes": ["rgb_array"] if envs.draws else [], "render_fps": envs.frames_per_second or 30}


def _run_seed(seed: int | None, options: dict[str, Any] | None, np_random: np.random.Generator) -> int:
    if options:
        raise EnvError(f"reset options {sorted(options)}: our environments take none")
    return int(np_random.integers(2**63 - 1)) if seed is None else seed


def _tensors(action: Any, device: torch.device, single: bool = False) -> Any:
    """Convert an action to tensors with N in front; one of a `single` environment gets N = 1."""
    if isinstance(action, Mapping):
        return {key: _tensors(value, device, single) for key, value in action.items()}
    array = np.asarray(action)
    return torch.as_tensor(array[None] if single else array, device=device)


def _observation(obs: Tensor | dict[str, Tensor], space: Space[Any], index: int | None = None) -> Any:
    """Copy to NumPy, all rows or one, with the dtypes of `space`: bits are bool here, int8 in Gymnasium."""
    if isinstance(obs, dict):
        assert isinstance(space, Dict)
        return {key: _observation(value, space[key], index) for key, value in obs.items()}
    array = _numpy(obs if index is None else obs[index])
    assert space.dtype is not None
    return space.dtype.type(array) if array.ndim == 0 else array.astype(space.dtype, copy=False)


def _ending_info(envs: Any, index: int) -> dict[str, float]:
    """Return the numbers that an environment gives about the episode that has just ended, such as its cost."""
    return {name: float(values[index]) for name, values in envs.ending_info().items()}


def _numpy(data: Tensor) -> np.ndarray:
    return data.cpu().numpy().copy()
