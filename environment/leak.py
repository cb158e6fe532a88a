"""Leak-v0, the leak detector: only memory that survives the end of an episode can score above chance.

Each episode shows a random bit in its last observations, and the first step of the next episode pays for naming it. At
that step a correct agent sees a blank and its memory has just been reset, so it stays at chance. An agent whose memory
is reset too late, too early, not at all, for the wrong environment or at one kind of ending only, learns the bit.

- Observation (1,) float32: 0, a blank, except for the last two observations of an episode that are acted on and its
  final observation: there -1 or +1, the bit.
- Action: Discrete(2): 0 names the bit -1, 1 names +1.
- Reward on the first step of an episode: +1 if the action names the bit of the previous episode, else -1. For the first
  episode after `reset`, which has no previous one, that bit is drawn. 0 on all other steps.
- An episode has min_length..max_length steps, uniform, both included; its end does not depend on the actions. `ending`:
  "terminated", "truncated", or "both": each episode ends in either way, equally likely.
- Reset: the bit, the length and the kind of ending are drawn for each episode.

Return of an episode: +1 or -1, 0 on average at chance, whatever the policy (standard error 1 / sqrt(episodes)). With a
leak it rises to 1.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ppo_lab.envs import Envs, Step, snapshots
from ppo_lab.errors import EnvError

ENDINGS = {"terminated": 0.0, "truncated": 1.0, "both": 0.5}  # -> probability that an episode is truncated


class Leak(Envs):
    """N copies as one batched tensor program: `ppo_lab.envs.Envs`, with same-step reset.

    Args:
        num_envs: N.
        device: Device of all tensors.
        ending: How episodes end: "terminated", "truncated" or "both".
        min_length, max_length: Steps of an episode; at least 3, so that its first observation is blank.

    Raises:
        EnvError: An argument is outside its range.
    """

    capturable = True

    def __init__(
        self,
        num_envs: int,
        device: str | torch.device = "cpu",
        ending: str = "both",
        min_length: int = 3,
        max_length: int = 8,
    ) -> None:
        if num_envs < 1 or not 3 <= min_length <= max_length:
            given = f"num_envs={num_envs}, min_length={min_length}, max_length={max_length}"
            raise EnvError(f"Leak: {given}; required: num_envs >= 1 and 3 <= min_length <= max_length")
        if ending not in ENDINGS:
            raise EnvError(f"Leak: ending={ending!r}; allowed are {', '.join(ENDINGS)}")
        self.num_envs, self.device = num_envs, torch.device(device)
        self.ending, self.min_length, self.max_length = ending, min_length, max_length
        self.max_episode_steps = max_length
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.generator = torch.Generator(self.device)
        self._bit, self._earlier, self._elapsed, self._length = torch.zeros(
            4, num_envs, dtype=torch.int64, device=self.device
        )
        self._cut = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._valid = torch.ones_like(self._cut)
        self._memory = {
            "bit": self._bit,  # 0 or 1, of this episode
            "earlier": self._earlier,  # of the previous episode: the bit to name
            "elapsed": self._elapsed,
            "length": self._length,
            "cut": self._cut,  # this episode will be truncated
        }

    @property
    def obs(self) -> Tensor:
        """The observation (N, 1) to act on next."""
        shown = self._elapsed >= self._length - 2
        return (shown * (2 * self._bit - 1)).float()[:, None]

    def reset(self, seed: int) -> Tensor:
        """Start N new episodes; equal seeds on equal devices give equal episodes. Returns obs (N, 1)."""
        self.generator.manual_seed(seed)
        self._bit.copy_(self._draw(0, 1))  # stands in for the bit of a previous episode
        self._start(self._valid)
        return self.obs

    def step(self, action: Tensor) -> Step:
        """Step every copy: action (N,) int64."""
        named = 2 * (action == self._earlier) - 1  # (N,) +1 or -1
        reward = ((self._elapsed == 0) * named).float()
        self._elapsed += 1
        done = self._elapsed >= self._length
        terminated, truncated = done & ~self._cut, done & self._cut
        final_obs = self.obs
        self._start(done)
        return Step(self.obs, reward, terminated, truncated, final_obs, self._valid)

    def _start(self, where: Tensor) -> None:
        # Drawn for all and used where an episode begins: a check would synchronize with the device.
        uniform = torch.rand(self.num_envs, generator=self.generator, device=self.device)
        self._earlier.copy_(torch.where(where, self._bit, self._earlier))
        self._bit.copy_(torch.where(where, self._draw(0, 1), self._bit))
        self._length.copy_(torch.where(where, self._draw(self.min_length, self.max_length), self._length))
        self._cut.copy_(torch.where(where, uniform < ENDINGS[self.ending], self._cut))
        self._elapsed.masked_fill_(where, 0)

    def _draw(self, low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (self.num_envs,), generator=self.generator, device=self.device)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all the next step depends on: `bit`, `earlier`, `elapsed`, `length`, `cut` (N,) each, `generator`."""
        return snapshots.save(self._memory, self.generator)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict` as if never stopped. Raises EnvError if it does not fit."""
        snapshots.load("Leak", self._memory, self.generator, state)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
