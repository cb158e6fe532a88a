"""The gradient of one minibatch: the loss under the policy as it is now, in one part or in several."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.amp import GradScaler

from ppo_lab.actor_critic import ActorCritic
from ppo_lab.batches import Batch
from ppo_lab.config import PPOConfig
from ppo_lab.envs import Obs
from ppo_lab.losses import Loss, ppo_loss, weighted_mean
from ppo_lab.mlp_gradient import MLPGradient
from ppo_lab.optimizer import clear_gradients
from ppo_lab.plain_mlp import PlainMLP, plain_mlp
from ppo_lab.rollout import Rollout


class Learning(Protocol):
    """What finding a gradient needs of the training state."""

    model: ActorCritic
    optimizer: torch.optim.Optimizer
    scaler: GradScaler


def minibatch_loss(model: ActorCritic, batch: Batch, ppo: PPOConfig) -> Loss:
    """The PPO loss of a batch; its means are over the rows that are experience, its values in the critic's units."""
    pick, scaled = batch.experience, model.critic_head.normalized
    log_prob, entropy, value = model.evaluate(batch.obs, batch.action, batch.memory, batch.starts)  # (L, B) each
    return ppo_loss(
        pick(log_prob), pick(entropy), scaled(pick(value)), pick(batch.log_prob), scaled(pick(batch.value)),
        pick(batch.advantage), scaled(pick(batch.returns)), clip_coef=ppo.clip_coef, vf_coef=ppo.vf_coef,
        ent_coef=ppo.ent_coef, value_clip_coef=ppo.value_clip_coef, dual_clip=ppo.dual_clip,
    )  # fmt: skip


class Autograd:
    """Loss and gradient of a batch by torch's autograd, for any model; the gradient is left in the parameters.

    In `accumulate` parts, each weighted by its share of the rows, so that the sum is the gradient of the whole.
    """

    flat: Tensor | None = None  # gradients are tensors of their own

    def __init__(
        self, model: ActorCritic, optimizer: torch.optim.Optimizer, scaler: GradScaler, ppo: PPOConfig
    ) -> None:
        self.model, self.optimizer, self.scaler, self.ppo = model, optimizer, scaler, ppo

    def __call__(self, batch: Batch) -> Loss:
        """The loss of a batch, recurrent or not."""
        clear_gradients(self.optimizer)
        parts = []
        for part, share in batch.split(self.ppo.accumulate):
            loss = minibatch_loss(self.model, part, self.ppo)
            self.scaler.scale(loss.total if share == 1.0 else loss.total * share).backward()
            parts.append((loss, share))
        return weighted_mean(parts)


def gradient_route(state: Learning, rollout: Rollout, ppo: PPOConfig, route: str) -> Autograd | MLPGradient:
    """How an update finds its gradients: by hand where `by_hand` knows how, else by autograd."""
    plain = by_hand(state.model, rollout.obs, ppo, route)
    if plain is None:
        return Autograd(state.model, state.optimizer, state.scaler, ppo)
    return MLPGradient(state.model, plain, ppo, -(-rollout.reward.numel() // ppo.num_minibatches))


def by_hand(model: ActorCritic, obs: Obs, ppo: PPOConfig, route: str) -> PlainMLP | None:
    """The layers of a model whose gradient is found by hand; None for all others, and with the route "autograd"."""
    return plain_mlp(model, obs) if route == "auto" and ppo.accumulate == 1 else None
