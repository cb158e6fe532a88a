"""The gradient of one minibatch: the loss under the policy as it is now, in one part or in several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.amp import GradScaler

from ppo_lab.config import Config, PPOConfig, RunConfig
from ppo_lab.engine.flat_parameters import FlatParameters
from ppo_lab.engine.mlp_gradient import MLPGradient, can_be_stacked
from ppo_lab.engine.plain_mlp import PlainMLP, plain_mlp
from ppo_lab.envs.contract import Obs
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.batches import Batch
from ppo_lab.ppo.losses import Loss, ppo_loss, weighted_mean
from ppo_lab.ppo.optimizer import clear_gradients
from ppo_lab.ppo.rollout import Rollout


class Learning(Protocol):
    """What finding a gradient needs of the training state."""

    model: ActorCritic
    optimizer: torch.optim.Optimizer
    scaler: GradScaler


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


LossFunction = Callable[[ActorCritic, Batch, PPOConfig], Loss]


class Autograd:
    """Loss and gradient of a batch by torch's autograd, for any model; the gradient is left in the parameters.

    In `accumulate` parts, each weighted by its share of the rows, so that the sum is the gradient of the whole.
    """

    flat: FlatParameters | None = None  # gradients are tensors of their own
    inputs: Tensor | None = None  # a model normalises by itself

    def __init__(self, state: Learning, ppo: PPOConfig, loss_of: LossFunction) -> None:
        """loss_of: `minibatch_loss`, or that compiled."""
        self.state, self.ppo, self.loss_of = state, ppo, loss_of

    def __call__(self, batch: Batch) -> Loss:
        """The loss of a batch, recurrent or not."""
        clear_gradients(self.state.optimizer)
        parts = []
        for part, share in batch.split(self.ppo.accumulate):
            loss = self.loss_of(self.state.model, part, self.ppo)
            self.state.scaler.scale(loss.total if share == 1.0 else loss.total * share).backward()
            parts.append((loss, share))
        return weighted_mean(parts)


Route = Autograd | MLPGradient


def gradient_route(
    state: Learning,
    rollout: Rollout,
    ppo: PPOConfig,
    run: RunConfig,
    loss_of: LossFunction = minibatch_loss,
    last: Route | None = None,
) -> Route:
    """How an update finds its gradients: by hand where `by_hand` says so, else by autograd.

    last: that of the update before, whose memory will do where nobody changed the model.
    """
    plain = by_hand(state.model, rollout.obs, ppo, run)
    if plain is None:
        return Autograd(state, ppo, loss_of)
    assert isinstance(rollout.obs, Tensor)
    rows = -(-rollout.reward.numel() // ppo.num_minibatches)
    if not isinstance(last, MLPGradient) or not last.fits(state.model, plain, rows):
        last = MLPGradient(state.model, plain, rows)
    return last.begin(plain, ppo, rollout.obs[:-1])


def by_hand(model: ActorCritic, obs: Obs, ppo: PPOConfig, run: RunConfig) -> PlainMLP | None:
    """The layers of a model whose gradient is found by hand; None for all others, or where `run` wants autograd."""
    # graphs on a CPU are a dry run of what a GPU does; parts (accumulate) are of autograd alone
    otherwise = run.gradient == "autograd" or run.compile or run.cuda_graphs is True or ppo.accumulate > 1
    plain = None if otherwise else plain_mlp(model, obs)
    return plain if plain is not None and can_be_stacked(model, plain) else None


def probe(config: Config, model: ActorCritic, batch: Batch) -> Callable[[], object]:
    """What one minibatch takes, for who measures it: the gradient by hand or by autograd, not compiled."""
    plain = by_hand(model, batch.obs, config.ppo, config.run)
    if plain is None:
        return lambda: minibatch_loss(model, batch, config.ppo).total.backward()
    gradient = MLPGradient(model, plain, batch.starts.numel()).begin(plain, config.ppo)
    return lambda: gradient(batch)
