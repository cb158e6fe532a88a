"""The interface between the PPO algorithm and an engine, which does the computations (`ppo_lab.engine`)."""

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
    """The gradient steps of one update: call `gradient` with a minibatch, then `step`."""

    inputs: Tensor | None = None  # (T, N, F) normalised observations, if the engine has computed them already

    @abstractmethod
    def gradient(self, batch: Batch) -> Loss:
        """Compute the loss of a minibatch and its gradient. Return the loss."""

    @abstractmethod
    def step(self) -> Tensor:
        """Take an optimizer step with the last gradient. Return its norm before clipping, ().

        If the norm is NaN or infinite, no step is taken. The caller can see that from the norm.
        """


class Engine(ABC):
    """The computations of an update: T steps of all environments, and the gradient steps."""

    @abstractmethod
    def take_steps(
        self, envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout, asked: Asked
    ) -> Iterator[None]:
        """Fill a rollout except for its values and advance `state`, as `rollout.take_steps` does.

        Yields None before an environment step whenever `asked()` returns True.
        """

    @abstractmethod
    def learner(self, state: LearningState, rollout: Rollout, ppo: PPOConfig) -> Learner:
        """Return a `Learner` that takes the gradient steps of one update on this rollout, with these settings."""
