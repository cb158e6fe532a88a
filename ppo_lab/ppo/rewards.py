"""Reward preprocessing: a constant factor, bounds, and scaling by the running std of the discounted return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ppo_lab.config import PPOConfig
from ppo_lab.models.networks.normalization import RunningMoments
from ppo_lab.ppo.advantages import discounted_sums
from ppo_lab.ppo.rollout import Rollout


def rewards_to_learn(rollout: Rollout, ppo: PPOConfig, scaler: RewardScaler) -> Tensor:
    """Return the rewards (T, N) to learn from: multiplied by reward_scale, bounded, and normalised, as configured.

    The rewards in the rollout stay raw.
    """
    reward = rollout.reward if ppo.reward_scale == 1.0 else rollout.reward * ppo.reward_scale
    if ppo.reward_bound is not None:
        reward = reward.clamp(-ppo.reward_bound, ppo.reward_bound)
    if not ppo.normalize_reward:
        return reward
    return scaler(reward, rollout.done, rollout.valid, ppo.gamma, ppo.reward_clip)


class RewardScaler:
    """Reward scaling: divides rewards by the running std of R_t = gamma * R_{t-1} + r_t (Engstrom et al. 2020).

    The mean is not subtracted. R is reset to 0 after an episode, terminated or truncated. The statistics include a
    rollout before it is scaled, so that the first one is scaled well, too. Invalid rows do not count.
    """

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.moments = RunningMoments().to(device)
        self.discounted_return = torch.zeros(num_envs, dtype=torch.float64, device=device)  # (N,)

    def __call__(self, reward: Tensor, done: Tensor, valid: Tensor, gamma: float, clip: float) -> Tensor:
        """Add a rollout to the statistics. Return its rewards, scaled and clipped to +- clip, (T, N).

        reward, done, valid: (T, N). The input is not modified.
        """
        raw = reward.double()
        earned = raw * valid
        decay = torch.ones_like(raw).masked_fill_(valid, gamma)  # (T, N) factor of R from the row before
        earned[0] += decay[0] * self.discounted_return
        decay[1:] *= ~done[:-1]
        discounted = discounted_sums(earned.flip(0), decay.flip(0)).flip(0)  # (T, N) flipped, since R runs forwards
        self.discounted_return = discounted[-1] * ~done[-1]
        self.moments.update(discounted[valid])
        return (raw / (self.moments.var + 1e-8).sqrt()).clamp(-clip, clip).to(reward.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Return the full state as tensors."""
        return {"discounted_return": self.discounted_return, **self.moments.state_dict()}

    def load_moments(self, saved: Mapping[str, Any]) -> None:
        """Load the statistics from a `state_dict`, but not the discounted returns of unfinished episodes."""
        self.moments.load_state_dict({name: saved[name] for name in self.moments.state_dict()})
