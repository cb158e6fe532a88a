"""Between NumPy rows and tensors: actions in, steps out."""

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from ppo_lab.adapters.loop import Rows, describe_action
from ppo_lab.envs import Step
from ppo_lab.errors import EnvError, NonFiniteError


def action_format(num_envs: int, space: gymnasium.Space) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of the actions of N environments: (N,) int64 for Discrete, (N, *shape) for Box."""
    dtype = np.int64 if isinstance(space, Discrete) else space.dtype
    return (num_envs, *(space.shape or ())), np.dtype(dtype)


def as_numpy(action: Tensor, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The actions as a NumPy array of their own: environments keep what they are given, and write into it.

    Raises EnvError for a wrong shape, NonFiniteError with the environment for an action that is no number.
    """
    if action.shape != shape:
        raise EnvError(f"expected actions of shape {shape}, got {tuple(action.shape)}")
    array = action.numpy(force=True).astype(dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        i = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(axis=1)))
        raise NonFiniteError(f"the action for environment {i} is {describe_action(array[i])}: the policy's fault")
    return array


def as_step(rows: Rows, valid: np.ndarray) -> Step:
    """NumPy rows as tensors over the same memory."""
    obs, final_obs, reward, terminated, truncated = (torch.from_numpy(array) for array in rows)
    return Step(obs, reward, terminated, truncated, final_obs, torch.from_numpy(valid))


def on_device(step: Step, device: torch.device) -> Step:
    """The step where the trainer wants it: itself on a CPU, copies elsewhere."""
    return step if device.type == "cpu" else Step(*(tensor.to(device) for tensor in step))
