"""Environments for tests that answer with what identifies the row: nothing can be swapped without being noticed."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces

from ppo_lab.envs.contract import Envs, Step


class Script(Envs):
    """N environments whose observation is (environment, episode, step in it), with endings as they are written down.

    ends[k][n] is what the k-th real step of environment n does, over and over: '.' goes on, 'T' terminates, 'C' is cut
    off, 'B' both. next_step: the row after an ending is the reset.
    """

    device = torch.device("cpu")
    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, ends: list[str], next_step: bool = False) -> None:
        self.ends = np.array([list(row) for row in ends])
        self.num_envs = self.ends.shape[1]
        self.next_step_autoreset = next_step
        self.actions: list[torch.Tensor] = []

    def reset(self, seed: int) -> torch.Tensor:
        self.t = 0
        self.real_steps = np.zeros(self.num_envs, dtype=int)
        self.where = torch.stack([torch.arange(self.num_envs), *torch.zeros(2, self.num_envs, dtype=torch.int64)], -1)
        self.waiting = torch.zeros(self.num_envs, dtype=torch.bool)
        return self.where.float()

    def step(self, action: torch.Tensor) -> Step:
        self.actions.append(action.clone())
        ends = self.ends[self.real_steps % len(self.ends), np.arange(self.num_envs)]
        self.t += 1
        valid = ~self.waiting
        self.real_steps += valid.numpy()
        self.where[valid, 2] += 1
        terminated = torch.as_tensor(np.isin(ends, ["T", "B"])) & valid
        truncated = torch.as_tensor(np.isin(ends, ["C", "B"])) & valid
        reward = self.where[:, 2].float() * valid  # the number of the step
        done = terminated | truncated
        fresh = done if not self.next_step_autoreset else ~valid
        final = self.where.float()
        self.where[fresh, 1] += 1
        self.where[fresh, 2] = 0
        self.waiting = done if self.next_step_autoreset else torch.zeros_like(done)
        obs = self.where.float()
        return Step(obs, reward, terminated, truncated, obs if self.next_step_autoreset else final, valid)

    def close(self) -> None:
        pass
