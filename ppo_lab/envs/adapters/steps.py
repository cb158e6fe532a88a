"""Convert between NumPy rows and tensors: actions in, steps out."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from ppo_lab.envs.adapters.loop import describe_action
from ppo_lab.envs.adapters.rows import ArrayTree, Format, Rows, check_structure
from ppo_lab.envs.contract import Step
from ppo_lab.envs.spaces import bounds, leaf_spaces, map_leaves
from ppo_lab.errors import EnvError, NonFiniteError
from ppo_lab.trees import Tree, apply


def action_format(num_envs: int, space: gymnasium.Space) -> Any:
    """Return shape and dtype of the actions of N environments with a flat action space, or a dictionary of these.

    (N,) int64 for Discrete, (N, k) int64 for MultiDiscrete, (N, n) int8 for MultiBinary, (N, *shape) for Box.
    """
    formats = {
        key: ((num_envs, *(leaf.shape or ())), np.dtype(np.int64 if bounds(leaf) is not None else leaf.dtype))
        for key, leaf in leaf_spaces(space).items()
    }
    return formats.get("", formats)


def as_numpy(action: Tree, formats: Any) -> ArrayTree:
    """Copy the actions to new NumPy arrays: environments may keep what they are given and write into it.

    Raises EnvError for a wrong shape or wrong keys, NonFiniteError with the environment for an action that is not
    finite.
    """
    if isinstance(action, Tensor) and not isinstance(formats, dict):
        return _array(action, formats, "")
    check_structure(action, formats, "actions")
    assert isinstance(action, dict)
    return {key: _array(action[key], one, key) for key, one in formats.items()}


def _array(action: Tensor, format_: Format, key: str) -> np.ndarray:
    shape, dtype = format_
    if action.shape != shape:
        of = f" of {key!r}" if key else ""
        raise EnvError(f"expected actions{of} of shape {shape}, got {tuple(action.shape)}")
    array = action.numpy(force=True).astype(dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        i = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(axis=1)))
        of = f" of {key!r}" if key else ""
        raise NonFiniteError(f"the policy's action{of} for environment {i} is not finite: {describe_action(array[i])}")
    return array


def as_tensors(tree: ArrayTree) -> Tree:
    """Convert arrays to tensors that share their memory."""
    tensors: Tree = map_leaves(torch.from_numpy, tree)
    return tensors


def as_step(rows: Rows, valid: np.ndarray) -> Step:
    """Convert NumPy rows to a Step of tensors that share their memory."""
    reward, terminated, truncated = (torch.from_numpy(array) for array in rows[2:5])
    return Step(
        as_tensors(rows.obs), reward, terminated, truncated, as_tensors(rows.final_obs), torch.from_numpy(valid)
    )


def to(tree: Tree, device: torch.device) -> Tree:
    """Move the tensors to the device; no copy if they are there already."""
    return apply(lambda tensor: tensor.to(device), tree)


def on_device(step: Step, device: torch.device) -> Step:
    """Move the step to the device: itself on a CPU, copies elsewhere."""
    if device.type == "cpu":
        return step
    obs, reward, terminated, truncated, final_obs, valid = step
    reward, terminated, truncated = (tensor.to(device) for tensor in (reward, terminated, truncated))
    return Step(to(obs, device), reward, terminated, truncated, to(final_obs, device), valid.to(device))
