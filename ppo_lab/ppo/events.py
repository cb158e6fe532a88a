"""The events that a trainer yields, one after each part of an update."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ppo_lab.ppo.batches import Batch
from ppo_lab.ppo.losses import Loss
from ppo_lab.ppo.rollout import Rollout


class RolloutCollected(NamedTuple):
    """A rollout of T steps of N environments is complete. The next update overwrites it."""

    rollout: Rollout


class AdvantagesEstimated(NamedTuple):
    """The advantages and returns of the rollout were computed."""

    advantage: Tensor  # (T, N) before normalisation
    returns: Tensor  # (T, N)


class MinibatchStepped(NamedTuple):
    """One optimizer step was taken. `loss` is the loss before it.

    Copy a parameter's `grad` to keep it: the next minibatch may overwrite it.
    """

    epoch: int
    batch: Batch
    loss: Loss
    grad_norm: Tensor  # () before clipping


class Update(NamedTuple):
    """One PPO update is done. The training state is consistent now, and can be inspected, evaluated and saved."""

    update: int  # 1 for the first
    global_step: int  # env steps so far
    metrics: dict[str, float]


Event = RolloutCollected | AdvantagesEstimated | MinibatchStepped | Update
