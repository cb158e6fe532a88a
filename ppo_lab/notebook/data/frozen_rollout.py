"""A frozen copy of a rollout, to recompute advantages, ratios and the objective with other settings."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppo_lab.config import PPOConfig
from ppo_lab.errors import LabError
from ppo_lab.models.actor_critic import ActorCritic, Memory
from ppo_lab.ppo.advantages import gae, normalized
from ppo_lab.ppo.events import Event, RolloutCollected
from ppo_lab.ppo.losses import clipped_surrogate
from ppo_lab.ppo.rewards import rewards_to_learn
from ppo_lab.ppo.rollout import Rollout
from ppo_lab.ppo.schedules import in_force, settings_at
from ppo_lab.trees import apply, at

if TYPE_CHECKING:
    from ppo_lab.training.trainer import Trainer


class SurrogateSteps(NamedTuple):
    """PPO's objective on M samples, before the first (row 0) and after each of S gradient steps."""

    clip_coef: float
    ratio: np.ndarray  # (S + 1, M) pi_now(a|s) / pi_old(a|s)
    advantage: np.ndarray  # (M,) as the loss uses it
    objective: np.ndarray  # (S + 1,) mean(min(r A, clip(r) A)), which is maximized
    unclipped: np.ndarray  # (S + 1,) mean(r A)
    stopped: np.ndarray  # (S + 1, M) bool: past the clip range in the direction of the advantage, so no gradient


@dataclass(frozen=True)
class FrozenRollout:
    """Copies of the data of an update. They stay unchanged when training continues."""

    rollout: Rollout
    reward: Tensor  # (T, N) as the critic learns it: scaled, bounded, normalised as configured
    ppo: PPOConfig  # the settings in force in this update
    statistics: dict[str, Tensor]  # the model's buffers, which normalised the observations

    def advantages(self, gamma: float | None = None, gae_lambda: float | None = None) -> tuple[Tensor, Tensor]:
        """Compute advantage and returns (T, N) with `ppo_lab.gae`; None uses the value that was in force.

        The reward scaling stays the one computed with the gamma in force.
        """
        r = self.rollout
        gamma = self.ppo.gamma if gamma is None else gamma
        gae_lambda = self.ppo.gae_lambda if gae_lambda is None else gae_lambda
        return gae(self.reward, r.value, r.next_value, r.terminated, r.done, r.valid, gamma, gae_lambda)

    @torch.no_grad()
    def ratio(self, model: ActorCritic) -> Tensor:
        """Return the probability ratio pi_now(a|s) / pi_old(a|s) of every recorded action, (T, N).

        Computed step by step, in batches of N as during collection: so an unchanged policy gives exactly 1, not 1 up to
        rounding. Memory is read from the rollout at the beginning of every chunk, as the update does.
        """
        rollout, seen = self.rollout, copy.deepcopy(model)
        for name, buffer in seen.named_buffers():
            buffer.copy_(self.statistics[name])  # with newer ones, the ratio would change although the policy did not
        log_prob = torch.empty_like(rollout.log_prob)  # (T, N)
        memory: Memory = None
        for t in range(len(rollout)):
            if t % rollout.chunk_length == 0:
                memory = at(rollout.memory, t // rollout.chunk_length) or None
            distribution, memory = seen.step(at(rollout.obs, t), memory, rollout.starts[t])
            log_prob[t] = distribution.log_prob(rollout.action[t])
        return (log_prob - rollout.log_prob).exp()

    def surrogate(self, ratio: Sequence[Tensor], advantage: Tensor, clip_coef: float) -> SurrogateSteps:
        """Compute PPO's objective with a clip range, over the valid rows.

        ratio: S + 1 of (T, N), the first from before the first gradient step. advantage: (T, N), from `advantages`; it
        is normalised here over the whole rollout unless normalize_advantage is "never".
        """
        valid = self.rollout.valid
        ratios = torch.stack([each[valid] for each in ratio])  # (S + 1, M)
        used = advantage[valid]  # (M,)
        if self.ppo.normalize_advantage != "never":
            used = normalized(used)
        up, down = (used > 0) & (ratios > 1.0 + clip_coef), (used < 0) & (ratios < 1.0 - clip_coef)  # (S + 1, M)
        return SurrogateSteps(
            clip_coef,
            ratios.cpu().numpy(),
            used.cpu().numpy(),
            np.array([-clipped_surrogate(each, used, clip_coef).item() for each in ratios]),
            (ratios * used).mean(dim=1).cpu().numpy(),
            (up | down).cpu().numpy(),
        )


def freeze(trainer: Trainer, event: Event) -> FrozenRollout:
    """Copy the rollout that was just collected; the trainer overwrites its own in the next update.

    event: the one that `trainer.events()` just yielded. Does not change the trainer. Raises LabError if the event is
    not RolloutCollected: later, the policy is no longer the one that collected.
    """
    if not isinstance(event, RolloutCollected):
        raise LabError(f"freeze: expected RolloutCollected, the first event of an update, got {type(event).__name__}")
    state, rollout = trainer.state, copied(event.rollout)
    before = state.global_step - int(rollout.valid.sum())
    ppo = in_force(settings_at(trainer.config.ppo, state.live, before, state.total_timesteps), state.adapted)
    # a copy of the scaler: the trainer is about to update its own with this rollout
    reward = rewards_to_learn(rollout, ppo, copy.deepcopy(state.reward_scaler))
    statistics = {name: buffer.detach().clone() for name, buffer in state.model.named_buffers()}
    return FrozenRollout(rollout, reward, ppo, statistics)


def copied(rollout: Rollout) -> Rollout:
    """Return a copy that shares no memory with the original."""
    return Rollout(**{field.name: _own(getattr(rollout, field.name)) for field in fields(rollout)})


def _own(value: Any) -> Any:
    return value if isinstance(value, int) else apply(lambda tensor: tensor.detach().clone(), value)
