"""The gradient steps of an update with torch's autograd: the reference implementation, for any model and any loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from ppo_lab.config import PPOConfig
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.batches import Batch
from ppo_lab.ppo.contract import Learner, LearningState
from ppo_lab.ppo.losses import Loss, ppo_loss, weighted_mean
from ppo_lab.ppo.optimizer import clear_gradients, gradient_step


class LossSettings(NamedTuple):
    """The settings that the loss uses. Those that can change during training may be tensors ()."""

    clip_coef: Any  # float or Tensor
    vf_coef: float | Tensor
    ent_coef: float | Tensor
    value_clip_coef: float | None
    dual_clip: float | None


def minibatch_loss(model: ActorCritic, batch: Batch, ppo: PPOConfig | LossSettings) -> Loss:
    """Return the PPO loss of a batch: means over its valid rows.

    Values and returns are in the critic's units: normalised, if the critic head normalises its targets.
    """
    pick, scaled = batch.experience, model.critic_head.normalized
    log_prob, entropy, value = model.evaluate(batch.obs, batch.action, batch.memory, batch.starts)  # (L, B) each
    return ppo_loss(
        pick(log_prob), pick(entropy), scaled(pick(value)), pick(batch.log_prob), scaled(pick(batch.value)),
        pick(batch.advantage), scaled(pick(batch.returns)), clip_coef=ppo.clip_coef, vf_coef=ppo.vf_coef,
        ent_coef=ppo.ent_coef, value_clip_coef=ppo.value_clip_coef, dual_clip=ppo.dual_clip,
    )  # fmt: skip


LossFunction = Callable[[ActorCritic, Batch, PPOConfig], Loss]


class Autograd(Learner):
    """A `Learner` that uses autograd. The gradient is accumulated in the `grad` of the parameters.

    A minibatch is processed in `accumulate` parts. Each is weighted by its share of the rows, so that the sum is the
    gradient of the whole minibatch.
    """

    def __init__(self, state: LearningState, ppo: PPOConfig, loss_of: LossFunction = minibatch_loss) -> None:
        self.state, self.ppo, self.loss_of = state, ppo, loss_of

    def gradient(self, batch: Batch) -> Loss:
        """Compute the loss of a minibatch, recurrent or not, and its gradient. Return the loss."""
        clear_gradients(self.state.optimizer)
        parts = []
        for part, share in batch.split(self.ppo.accumulate):
            loss = self.loss_of(self.state.model, part, self.ppo)
            self.state.scaler.scale(loss.total if share == 1.0 else loss.total * share).backward()
            parts.append((loss, share))
        return weighted_mean(parts)

    def step(self) -> Tensor:
        """Take an optimizer step with that gradient. Return its norm before clipping, ()."""
        return gradient_step(self.state.optimizer, self.ppo.max_grad_norm, self.state.scaler)
