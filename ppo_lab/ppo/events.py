"""What a trainer yields: the parts of an update as they happen."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ppo_lab.ppo.batches import Batch
from ppo_lab.ppo.losses import Loss
from ppo_lab.ppo.rollout import Rollout


class RolloutCollected(NamedTuple):
    """T steps of N environments are in; the next update writes over them."""

    rollout: Rollout


class AdvantagesEstimated(NamedTuple):
    """What the update will learn from."""

    advantage: Tensor  # (T, N) before normalisation
    returns: Tensor  # (T, N)


class MinibatchStepped(NamedTuple):
    """One optimizer step was taken; `loss` is from before it.

    Copy a parameter's `grad` to keep it: the next minibatch may write into the same memory.
    """

    epoch: int
    batch: Batch
    loss: Loss
    grad_norm: Tensor  # () before clipping


class Update(NamedTuple):
    """One PPO update is done: the state is whole, and can be looked at, evaluated and saved."""

    update: int  # 1 for the first
    global_step: int
    metrics: dict[str, float]


Event = RolloutCollected | AdvantagesEstimated | MinibatchStepped | Update
