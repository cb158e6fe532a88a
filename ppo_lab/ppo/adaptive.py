"""Adaptive settings: after each update, the learning rate follows the KL divergence, the entropy weight the entropy."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ppo_lab.config import PPOConfig
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.batches import whole
from ppo_lab.ppo.rollout import Rollout
from ppo_lab.ppo.schedules import adapted_ent_coef, adapted_learning_rate, settings_at
from ppo_lab.ppo.state import TrainState


class Divergence:
    """The KL divergence of a later policy from the current one, on the rows of a rollout."""

    @torch.no_grad()
    def __init__(self, model: ActorCritic, rollout: Rollout) -> None:
        self.batch = whole(rollout, rollout.value, rollout.value)
        self.old = model.distribution(self.batch.obs, self.batch.memory, self.batch.starts)

    @torch.no_grad()
    def of(self, model: ActorCritic) -> float:
        """Return KL(old || new) in nats: computed exactly for each state, then averaged over the valid rows."""
        new = model.distribution(self.batch.obs, self.batch.memory, self.batch.starts)
        return self.batch.experience(self.old.kl(new)).double().mean().item()


def divergence_if_needed(ppo: PPOConfig, model: ActorCritic, rollout: Rollout) -> Divergence | None:
    """Return a `Divergence` from the policy before the first gradient step; None if the rate is not adaptive."""
    return Divergence(model, rollout) if ppo.learning_rate_schedule == "adaptive" else None


def adapt(
    state: TrainState, configured: PPOConfig, ppo: PPOConfig, metrics: Mapping[str, float], moved: Divergence | None
) -> dict[str, float]:
    """Set the learning rate and entropy weight of the next update, if they are adaptive. Return the KL as a metric.

    configured: the settings at the start of the run. ppo: the settings of this update. metrics: of this update.
    moved: from `divergence_if_needed`.
    """
    if moved is None and ppo.target_entropy is None:
        return {}
    start = settings_at(configured, state.live, state.global_step, state.total_timesteps)
    found = {}
    if moved is not None:
        found["update/kl"] = moved.of(state.model)
        rate = adapted_learning_rate(ppo.learning_rate, found["update/kl"], ppo.desired_kl)
        state.adapted["learning_rate"] = (start.learning_rate, rate)
    if ppo.target_entropy is not None and "loss/entropy" in metrics:
        coef = adapted_ent_coef(ppo.ent_coef, metrics["loss/entropy"], ppo.target_entropy)
        state.adapted["ent_coef"] = (start.ent_coef, coef)
    return found
