"""A policy for use: act and predict, without trainer, environments or logs."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Generator, Tensor

from ppo_lab.actor_critic import ActorCritic, Memory
from ppo_lab.errors import ConfigError, RunError
from ppo_lab.runs.checkpoint import load_checkpoint
from ppo_lab.runs.run import find_checkpoint, find_run, read_config
from ppo_lab.space_text import make_space


class Policy:
    """A trained model, frozen: a copy of the weights and of the observation statistics."""

    def __init__(self, model: ActorCritic, seed: int = 0) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.device = next(self.model.parameters()).device
        self.generator = Generator(self.device).manual_seed(seed)
        self._memory: Memory = None
        self._batch: int | None = None  # how many environments the memory of `predict` belongs to

    def initial_memory(self, num_envs: int) -> Memory:
        """The memory at the start of an episode; None for a model without one."""
        return self.model.initial_memory(num_envs)

    @torch.no_grad()
    def act(
        self,
        obs: Tensor,
        memory: Memory,
        starts: Tensor,
        *,
        deterministic: bool = True,
        generator: Generator | None = None,
    ) -> tuple[Tensor, Memory]:
        """Actions as the environment takes them for obs (N, *obs), starts (N,) bool, and the memory after them.

        deterministic: the most likely action, else one drawn with `generator` (None: the policy's own).
        """
        distribution, memory = self.model.step(obs, memory, starts)
        action = distribution.mode() if deterministic else distribution.sample(generator or self.generator)
        return self.model.to_env(action), memory

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """V(s) for obs (N, *obs), (N,)."""
        return self.model.value(obs)

    def reset(self) -> None:
        """Forget what `predict` remembers: the next call starts new episodes."""
        self._memory, self._batch = None, None

    @overload
    def predict(self, obs: Tensor, deterministic: bool = True) -> Tensor: ...
    @overload
    def predict(self, obs: Any, deterministic: bool = True) -> np.ndarray: ...
    def predict(self, obs: Any, deterministic: bool = True) -> Any:
        """The action for one observation (*obs) or a batch (N, *obs); a tensor for a tensor, else NumPy.

        One in, one out: `env.step(policy.predict(obs))` works. Raises ConfigError for a shape that fits neither.
        """
        given = obs if isinstance(obs, Tensor) else torch.as_tensor(np.asarray(obs))
        shape = self.model.features.obs_shape
        single = given.dim() == len(shape)
        batch = (given.unsqueeze(0) if single else given).to(self.device)
        if batch.dtype == torch.float64:
            batch = batch.float()
        if tuple(batch.shape[1:]) != shape:
            raise ConfigError(f"predict: one observation has shape {shape}, got {tuple(given.shape)}")
        starts = torch.full((len(batch),), self._batch != len(batch), dtype=torch.bool, device=self.device)
        if self._batch != len(batch):
            self._memory, self._batch = self.initial_memory(len(batch)), len(batch)
        action, self._memory = self.act(batch, self._memory, starts, deterministic=deterministic)
        action = action[0] if single else action
        return action if isinstance(obs, Tensor) else action.cpu().numpy()[()]  # a lone Discrete action as a scalar


def load_policy(run: str | Path, at: int | str = "latest") -> Policy:
    """The policy of a run at a step, "latest" or "best". Needs no environment and writes nothing.

    Raises RunError if there is no such run or no whole checkpoint.
    """
    folder = find_run(run)
    path, passed = find_checkpoint(folder, at)
    for reason in passed:
        logging.getLogger("ppo_lab").warning("passed over: %s", reason)
    saved = load_checkpoint(path)
    observation_space, action_space = (
        make_space(saved["about"][name]) for name in ("observation_space", "action_space")
    )
    model = ActorCritic(read_config(folder).model, observation_space, action_space)
    try:
        model.load_state_dict(saved["model"])
    except RuntimeError as error:
        raise RunError(
            f"{path}: the weights do not fit the settings of the run: {' '.join(str(error).split())[:300]}"
        ) from None
    return Policy(model)
