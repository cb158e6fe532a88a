"""Recall-v0: a cue is shown once, blank observations follow, and at the go signal the cue must be named.

The smallest task that cannot be solved without memory: the observation at the go signal does not depend on the cue.

- Observation (num_cues + 1,) float32. First step of an episode: the cue, one-hot in the first `num_cues` numbers. Then
  `delay` blank steps: zeros. Then the go signal: the last number is 1, the others are 0.
- Action: Discrete(num_cues). Only the one at the go signal counts.
- Reward: 1 if the action at the go signal is the cue, else 0; 0 on all other steps.
- Terminated: after the answer, so an episode has delay + 2 steps. Never truncated. The final observation is blank.
- Reset: cue uniform; delay uniform in min_delay..max_delay, both included.

Return of an episode: 1 with memory; 1 / num_cues on average for every policy without memory.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ppo_lab.envs import Envs, Step, snapshots
from ppo_lab.errors import EnvError


class Recall(Envs):
    """N copies as one batched tensor program: `ppo_lab.envs.Envs`, with same-step reset.

    Args:
        num_envs: N.
        device: Device of all tensors.
        num_cues: Number of cues and of actions.
        min_delay, max_delay: Blank steps between cue and go signal.

    Raises:
        EnvError: An argument is outside its range.
    """

    capturable = True

    def __init__(
        self,
        num_envs: int,
        device: str | torch.device = "cpu",
        num_cues: int = 2,
        min_delay: int = 5,
        max_delay: int = 20,
    ) -> None:
        if num_envs < 1 or num_cues < 2:
            raise EnvError(f"Recall: num_envs={num_envs}, num_cues={num_cues}; allowed are >= 1 and >= 2")
        if not 0 <= min_delay <= max_delay:
            raise EnvError(
                f"Recall: min_delay={min_delay}, max_delay={max_delay}; required: 0 <= min_delay <= max_delay"
            )
        self.num_envs, self.device = num_envs, torch.device(device)
        self.num_cues, self.min_delay, self.max_delay = num_cues, min_delay, max_delay
        self.max_episode_steps = max_delay + 2
        self.observation_space = spaces.Box(0.0, 1.0, (num_cues + 1,), np.float32)
        self.action_space = spaces.Discrete(num_cues)
        self.generator = torch.Generator(self.device)
        self._cues = torch.arange(num_cues, device=self.device)
        self._cue, self._delay, self._elapsed = torch.zeros(3, num_envs, dtype=torch.int64, device=self.device)
        self._memory = {"cue": self._cue, "delay": self._delay, "elapsed": self._elapsed}
        self._valid = torch.ones(num_envs, dtype=torch.bool, device=self.device)

    @property
    def obs(self) -> Tensor:
        """The observation (N, num_cues + 1) to act on next."""
        cue = (self._cues == self._cue[:, None]) & (self._elapsed == 0)[:, None]  # (N, num_cues)
        return torch.cat([cue, self._is_go()[:, None]], dim=1).float()

    def _is_go(self) -> Tensor:
        return self._elapsed == self._delay + 1  # (N,)

    def reset(self, seed: int) -> Tensor:
        """Start N new episodes; equal seeds on equal devices give equal episodes. Returns obs (N, num_cues + 1)."""
        self.generator.manual_seed(seed)
        self._start(self._valid)
        return self.obs

    def step(self, action: Tensor) -> Step:
        """Step every copy: action (N,) int64."""
        terminated = self._is_go()
        reward = (terminated & (action == self._cue)).float()
        self._elapsed += 1
        final_obs = self.obs
        self._start(terminated)
        return Step(self.obs, reward, terminated, ~self._valid, final_obs, self._valid)

    def _start(self, where: Tensor) -> None:
        # Drawn for all and used where an episode begins: a check would synchronize with the device.
        self._cue.copy_(torch.where(where, self._draw(0, self.num_cues - 1), self._cue))
        self._delay.copy_(torch.where(where, self._draw(self.min_delay, self.max_delay), self._delay))
        self._elapsed.masked_fill_(where, 0)

    def _draw(self, low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (self.num_envs,), generator=self.generator, device=self.device)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything the next step depends on: `cue`, `delay`, `elapsed` (N,) each, `generator`."""
        return snapshots.save(self._memory, self.generator)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict` as if never stopped. Raises EnvError if it does not fit."""
        snapshots.load("Recall", self._memory, self.generator, state)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
