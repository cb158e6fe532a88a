"""Reward scaling by the running standard deviation of the discounted return."""

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
    """Return the rewards (T, N) that the critic learns: scaled by reward_scale, bounded, normalised. The recorded ones
    stay raw.
    """
    reward = rollout.reward if ppo.reward_scale == 1.0 else rollout.reward * ppo.reward_scale
    if ppo.reward_bound is not None:
        reward = reward.clamp(-ppo.reward_bound, ppo.reward_bound)
    if not ppo.normalize_reward:
        return reward
    return scaler(reward, rollout.done, rollout.valid, ppo.gamma, ppo.reward_clip)


class RewardScaler:
    """Divide rewards by the running std of R_t = gamma * R_{t-1} + r_t (Engstrom et al. 2020); the mean stays.

    R starts anew after an episode, terminated or truncated. Statistics take in a whole rollout before it is scaled, so
    that the first one is scaled well too. Rows that are no experience do not count.
    """

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.moments = RunningMoments().to(device)
        self.discounted_return = torch.zeros(num_envs, dtype=torch.float64, device=device)  # (N,)

    def __call__(self, reward: Tensor, done: Tensor, valid: Tensor, gamma: float, clip: float) -> Tensor:
        """Take in a rollout (T, N); its rewards scaled and clipped to +- clip, (T, N). The input stays as it is."""
        raw = reward.double()
        earned = raw * valid
        decay = torch.ones_like(raw).masked_fill_(valid, gamma)  # (T, N) of the row before
        earned[0] += decay[0] * self.discounted_return
        decay[1:] *= ~done[:-1]
        discounted = discounted_sums(earned.flip(0), decay.flip(0)).flip(0)  # (T, N), forwards in time
        self.discounted_return = discounted[-1] * ~done[-1]
        self.moments.update(discounted[valid])
        return (raw / (self.moments.var + 1e-8).sqrt()).clamp(-clip, clip).to(reward.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Return everything as tensors."""
        return {"discounted_return": self.discounted_return, **self.moments.state_dict()}

    def load_moments(self, saved: Mapping[str, Any]) -> None:
        """Take over the statistics; the returns under way belong to the environments."""
        self.moments.load_state_dict({name: saved[name] for name in self.moments.state_dict()})
