"""The gradient of one minibatch: the loss under the policy as it is now, in one part or in several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.amp import GradScaler

from ppo_lab.actor_critic import ActorCritic
from ppo_lab.batches import Batch
from ppo_lab.config import PPOConfig
from ppo_lab.losses import Loss, ppo_loss, weighted_mean
from ppo_lab.optimizer import clear_gradients


class LossSettings(NamedTuple):
    """The settings that the loss reads; those that change while training runs may be tensors ()."""

    clip_coef: Any  # float or Tensor
    vf_coef: float | Tensor
    ent_coef: float | Tensor
    value_clip_coef: float | None
    dual_clip: float | None


def minibatch_loss(model: ActorCritic, batch: Batch, ppo: PPOConfig | LossSettings) -> Loss:
    """The PPO loss of a batch; its means are over the rows that are experience, its values in the critic's units."""
    pick, scaled = batch.experience, model.critic_head.normalized
    log_prob, entropy, value = model.evaluate(batch.obs, batch.action, batch.memory, batch.starts)  # (L, B) each
    return ppo_loss(
        pick(log_prob), pick(entropy), scaled(pick(value)), pick(batch.log_prob), scaled(pick(batch.value)),
        pick(batch.advantage), scaled(pick(batch.returns)), clip_coef=ppo.clip_coef, vf_coef=ppo.vf_coef,
        ent_coef=ppo.ent_coef, value_clip_coef=ppo.value_clip_coef, dual_clip=ppo.dual_clip,
    )  # fmt: skip


def leave_gradient(
    model: ActorCritic,
    optimizer: torch.optim.Optimizer,
    scaler: GradScaler,
    batch: Batch,
    ppo: PPOConfig,
    minibatch_loss: Callable[[ActorCritic, Batch, PPOConfig], Loss] = minibatch_loss,
) -> Loss:
    """Leave the gradient of a minibatch's loss in the parameters; the loss.

    In `accumulate` parts, each weighted by its share of the rows, so that the sum is the gradient of the whole.
    """
    clear_gradients(optimizer)
    parts = []
    for part, share in batch.split(ppo.accumulate):
        loss = minibatch_loss(model, part, ppo)
        scaler.scale(loss.total if share == 1.0 else loss.total * share).backward()
        parts.append((loss, share))
    return weighted_mean(parts)
