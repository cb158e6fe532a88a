"""Returns and lengths of finished episodes, computed from the rewards and `done` flags of rollouts."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

WINDOW = 100  # number of episodes in the running mean


class EpisodeStatistics:
    """Statistics of the last 100 finished episodes, and the partial returns and lengths of the unfinished ones."""

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.partial_return = torch.zeros(num_envs, dtype=torch.float64, device=device)  # (N,)
        self.partial_length = torch.zeros(num_envs, dtype=torch.int64, device=device)  # (N,)
        self.returns: deque[float] = deque(maxlen=WINDOW)
        self.lengths: deque[int] = deque(maxlen=WINDOW)
        self.count = 0

    def update(self, reward: Tensor, done: Tensor, valid: Tensor) -> tuple[list[float], list[int]]:
        """Add a rollout (T, N). Return the returns and lengths of the episodes that ended in it, in order of time.

        A return is the undiscounted sum of raw rewards. There is no loop over time: the return of an episode is the
        cumulative sum at its end minus the cumulative sum at the end of the episode before.
        """
        returns = _running_sum(reward.double() * valid) + self.partial_return  # (T, N)
        lengths = valid.long().cumsum(0) + self.partial_length  # (T, N)
        env, time = done.T.nonzero().unbind(-1)  # (E,) each, by environment, then by time
        total, steps = returns[time, env], lengths[time, env]  # (E,)
        same = env[1:] == env[:-1]  # the entry before is an earlier episode of the same environment
        ended_return = total.clone()
        ended_length = steps.clone()
        ended_return[1:] -= torch.where(same, total[:-1], 0.0)
        ended_length[1:] -= torch.where(same, steps[:-1], 0)
        # rows after the last end of an episode belong to the unfinished one
        last = (done * torch.arange(len(done), device=done.device).unsqueeze(-1)).amax(0)  # (N,) time of that end, or 0
        ended = done.any(0)  # (N,)
        self.partial_return = returns[-1] - torch.where(ended, returns.gather(0, last[None])[0], 0.0)
        self.partial_length = lengths[-1] - torch.where(ended, lengths.gather(0, last[None])[0], 0)
        by_time = time.argsort(stable=True)
        new_returns, new_lengths = ended_return[by_time].tolist(), ended_length[by_time].tolist()
        self.returns.extend(new_returns)
        self.lengths.extend(new_lengths)
        self.count += len(new_returns)
        return new_returns, new_lengths

    def metrics(self) -> dict[str, float]:
        """Return means over the last 100 finished episodes; {} before the first one has ended."""
        if not self.returns:
            return {}
        returns = torch.tensor(list(self.returns), dtype=torch.float64)
        lengths = torch.tensor(list(self.lengths), dtype=torch.float64)
        return {
            "episode/return_mean": returns.mean().item(),
            "episode/return_std": returns.std(correction=0).item(),
            "episode/length_mean": lengths.mean().item(),
            "episode/count": float(self.count),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the full state as tensors, lists and numbers."""
        return {
            "partial_return": self.partial_return,
            "partial_length": self.partial_length,
            "returns": list(self.returns),
            "lengths": list(self.lengths),
            "count": self.count,
        }

    def load_finished(self, saved: Mapping[str, Any]) -> None:
        """Load the statistics of finished episodes from a `state_dict`."""
        self.returns = deque(saved["returns"], maxlen=WINDOW)
        self.lengths = deque(saved["lengths"], maxlen=WINDOW)
        self.count = saved["count"]

    def load_under_way(self, saved: Mapping[str, Any], device: torch.device) -> None:
        """Load the partial returns and lengths of unfinished episodes from a `state_dict`."""
        self.partial_return = saved["partial_return"].to(device)
        self.partial_length = saved["partial_length"].to(device)

    def forget_under_way(self) -> None:
        """Discard the partial returns and lengths, because new episodes start."""
        self.partial_return = torch.zeros_like(self.partial_return)
        self.partial_length = torch.zeros_like(self.partial_length)


def _running_sum(rows: Tensor) -> Tensor:
    """Return rows.cumsum(0), (T, N). With deterministic algorithms use a loop: cumsum on a GPU is not reproducible."""
    if not torch.are_deterministic_algorithms_enabled():
        return rows.cumsum(0)
    sums = rows.clone()
    for t in range(1, len(sums)):
        sums[t] += sums[t - 1]
    return sums
