"""The game of Spaces-v0; the docstring of the package has its rules."""

from __future__ import annotations

import torch
from gymnasium import Space, spaces
from torch import Tensor

from ppo_lab.envs import Action, Envs, Obs, Step, snapshots
from ppo_lab.errors import EnvError

from .actions import ACTIONS, Scorer
from .observations import NUM_NOISE, OBSERVATIONS


class Spaces(Envs):
    """N games as one batched tensor program: `ppo_lab.envs.Envs`, with same-step reset.

    Args:
        num_envs: N.
        device: Device of all tensors.
        observation: A key of OBSERVATIONS.
        action: A key of ACTIONS.
        masked: Add the mask of legal actions to the observation, as "action_mask".
        min_length, max_length: Steps of an episode.
        image_size: Height and width of images.

    Attributes:
        chance_reward: Mean reward of a random step: uniform over the legal choices and over the Box.

    Raises:
        EnvError: An argument is outside its range, or `masked` is True for an action that cannot be masked.
    """

    capturable = True

    def __init__(
        self,
        num_envs: int,
        device: str | torch.device = "cpu",
        observation: str = "vector",
        action: str = "discrete",
        masked: bool = False,
        min_length: int = 2,
        max_length: int = 6,
        image_size: int = 12,
    ) -> None:
        if num_envs < 1 or image_size < 2 or not 1 <= min_length <= max_length:
            given = f"num_envs={num_envs}, image_size={image_size}, min_length={min_length}, max_length={max_length}"
            raise EnvError(f"Spaces: {given}; required: num_envs >= 1, image_size >= 2, 1 <= min_length <= max_length")
        for what, name, known in (("observation", observation, OBSERVATIONS), ("action", action, ACTIONS)):
            if name not in known:
                raise EnvError(f"Spaces: {what}={name!r}; allowed are {', '.join(known)}")
        self.num_envs, self.device, self.masked = num_envs, torch.device(device), masked
        self.min_length, self.max_length = min_length, max_length
        self.max_episode_steps = max_length
        self._scorer = Scorer(action, self.device)
        if masked and not self._scorer.sizes:
            raise EnvError(f"Spaces: masked=True with action={action!r}; a Box cannot be masked")
        self._shown = OBSERVATIONS[observation](image_size)
        self._mask_size = sum(self._scorer.sizes) if masked else 0
        self.observation_space = _with_mask(self._shown.space, self._mask_size)
        self.action_space = self._scorer.space
        self.chance_reward = self._scorer.chance(masked)
        self.generator = torch.Generator(self.device)
        self._target, self._elapsed, self._length = torch.zeros(3, num_envs, dtype=torch.int64, device=self.device)
        self._noise = torch.zeros(num_envs, NUM_NOISE + self._mask_size, device=self.device)
        self._cut = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._memory = {
            "target": self._target,
            "noise": self._noise,  # of the observation, then of the mask: target and noise determine both
            "elapsed": self._elapsed,
            "length": self._length,
            "cut": self._cut,  # this episode will be truncated
        }
        self._valid = torch.ones_like(self._cut)

    @property
    def obs(self) -> Obs:
        """The observation to act on next, batched (N, ...)."""
        shown = self._shown.write(self._target, self._noise)
        legal = self._legal()
        if legal is None:
            return shown
        plain = shown if isinstance(shown, dict) else {"obs": shown}
        return {**plain, "action_mask": self._scorer.flat(legal)}

    def _legal(self) -> Tensor | None:
        return self._scorer.legal(self._target, self._noise[:, NUM_NOISE:]) if self.masked else None

    def right_action(self) -> Action:
        """Return the action that gets reward 1 in each game now."""
        return self._scorer.right_action(self._target)

    def reset(self, seed: int) -> Obs:
        """Start N new episodes; equal seeds on equal devices give equal episodes. Returns obs."""
        self.generator.manual_seed(seed)
        self._show_next(self._valid)
        self._start(self._valid)
        return self.obs

    def step(self, action: Action) -> Step:
        """Act on every target: a tensor (N, *action), for a Dict a dict of these by key."""
        reward = self._scorer.score(action, self._target, self._legal())
        self._elapsed += 1
        done = self._elapsed >= self._length
        terminated, truncated = done & ~self._cut, done & self._cut
        self._show_next(self._valid)
        final_obs = self.obs
        self._show_next(done)
        self._start(done)
        return Step(self.obs, reward, terminated, truncated, final_obs, self._valid)

    def _show_next(self, where: Tensor) -> None:
        # Drawn for all and used in `where`: checking whether an episode ended would synchronize with the device.
        noise = torch.rand(self._noise.shape, generator=self.generator, device=self.device)
        self._target.copy_(torch.where(where, self._draw(0, 3), self._target))
        self._noise.copy_(torch.where(where[:, None], noise, self._noise))

    def _start(self, where: Tensor) -> None:
        self._length.copy_(torch.where(where, self._draw(self.min_length, self.max_length), self._length))
        self._cut.copy_(torch.where(where, self._draw(0, 1) == 1, self._cut))
        self._elapsed.masked_fill_(where, 0)

    def _draw(self, low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (self.num_envs,), generator=self.generator, device=self.device)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything the next step depends on: `target`, `noise`, `elapsed`, `length`, `cut`, `generator`."""
        return snapshots.save(self._memory, self.generator)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict` as if never stopped. Raises EnvError if it does not fit."""
        snapshots.load("Spaces", self._memory, self.generator, state)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def _with_mask(space: Space, mask_size: int) -> Space:
    if not mask_size:
        return space
    plain = space.spaces if isinstance(space, spaces.Dict) else {"obs": space}
    return spaces.Dict({**plain, "action_mask": spaces.MultiBinary(mask_size)})
