"""The contract between the algorithm and an engine, which does its arithmetic (`ppo_lab.engine`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.amp import GradScaler

from ppo_lab.config import PPOConfig
from ppo_lab.envs.contract import Envs
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.batches import Batch
from ppo_lab.ppo.losses import Loss
from ppo_lab.ppo.rollout import Asked, Collecting, Rollout


class LearningState(Protocol):
    """The part of the training state that a gradient step reads and changes."""

    model: ActorCritic
    optimizer: torch.optim.Optimizer
    scaler: GradScaler


class Learner(ABC):
    """The gradient steps of one update: `gradient` of a minibatch, then `step`."""

    inputs: Tensor | None = None  # (T, N, F) observations to cut minibatches from, if they are normalised already

    @abstractmethod
    def gradient(self, batch: Batch) -> Loss:
        """Compute the loss of a minibatch and its gradient."""

    @abstractmethod
    def step(self) -> Tensor:
        """Take the step down the last gradient; return its norm () before clipping.

        A gradient that is not finite is not followed: the norm says so.
        """


class Engine(ABC):
    """The arithmetic of an update: T steps of all environments, and the gradient steps."""

    @abstractmethod
    def take_steps(
        self, envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout, asked: Asked
    ) -> Iterator[None]:
        """Fill a rollout, values aside, and advance `state`; as `rollout.take_steps`. Yield where `asked()`."""

    @abstractmethod
    def learner(self, state: LearningState, rollout: Rollout, ppo: PPOConfig) -> Learner:
        """Return what takes the gradient steps of an update with these settings on this rollout."""
