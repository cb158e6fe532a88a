"""A rollout that stays as it was, and what an update would make of it with other settings."""

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


class Surrogate(NamedTuple):
    """PPO's objective on M samples, before the first (row 0) and after each of S gradient steps."""

    clip_coef: float
    ratio: np.ndarray  # (S + 1, M) pi_now(a|s) / pi_then(a|s)
    advantage: np.ndarray  # (M,) as the loss uses it
    objective: np.ndarray  # (S + 1,) mean(min(r A, clip(r) A)), which the gradient climbs
    unclipped: np.ndarray  # (S + 1,) mean(r A)
    stopped: np.ndarray  # (S + 1, M) bool: past the clip in the direction its advantage asks for, so no gradient


@dataclass(frozen=True)
class FrozenRollout:
    """Copies of all that an update learns from. Nothing here changes, whatever the trainer does next."""

    rollout: Rollout
    reward: Tensor  # (T, N) as the critic learns it: scaled, bounded, normalised where the settings say so
    ppo: PPOConfig  # in force in this update
    statistics: dict[str, Tensor]  # the model's buffers, through which it saw the observations

    def advantages(self, gamma: float | None = None, gae_lambda: float | None = None) -> tuple[Tensor, Tensor]:
        """Advantage and returns (T, N) from `ppo_lab.gae`; None takes the value that was in force.

        Scaled rewards stay scaled as they were, with the gamma of the run.
        """
        r = self.rollout
        gamma = self.ppo.gamma if gamma is None else gamma
        gae_lambda = self.ppo.gae_lambda if gae_lambda is None else gae_lambda
        return gae(self.reward, r.value, r.next_value, r.terminated, r.done, r.valid, gamma, gae_lambda)

    @torch.no_grad()
    def ratio(self, model: ActorCritic) -> Tensor:
        """How likely `model` finds every recorded action, over how likely it was: (T, N), 1 where nothing changed.

        Step by step, in batches of N as when it was collected: so it is 1 exactly and not but for rounding. What a
        recurrent model remembers is taken from the rollout at the beginning of every chunk, as the update takes it.
        """
        rollout, seen = self.rollout, copy.deepcopy(model)
        for name, buffer in seen.named_buffers():
            buffer.copy_(self.statistics[name])  # another normalisation would move the ratio for another reason
        log_prob = torch.empty_like(rollout.log_prob)  # (T, N)
        memory: Memory = None
        for t in range(len(rollout)):
            if t % rollout.chunk_length == 0:
                memory = at(rollout.memory, t // rollout.chunk_length) or None
            distribution, memory = seen.step(at(rollout.obs, t), memory, rollout.starts[t])
            log_prob[t] = distribution.log_prob(rollout.action[t])
        return (log_prob - rollout.log_prob).exp()

    def surrogate(self, ratio: Sequence[Tensor], advantage: Tensor, clip_coef: float) -> Surrogate:
        """PPO's objective under a clip range.

        ratio: S + 1 of (T, N), the first from before the first gradient step. advantage: (T, N), from `advantages`; it
        is normalised here over the whole rollout unless normalize_advantage is "never".
        """
        valid = self.rollout.valid
        ratios = torch.stack([each[valid] for each in ratio])  # (S + 1, M)
        used = advantage[valid]  # (M,)
        if self.ppo.normalize_advantage != "never":
            used = normalized(used)
        up, down = (used > 0) & (ratios > 1.0 + clip_coef), (used < 0) & (ratios < 1.0 - clip_coef)  # (S + 1, M)
        return Surrogate(
            clip_coef,
            ratios.cpu().numpy(),
            used.cpu().numpy(),
            np.array([-clipped_surrogate(each, used, clip_coef).item() for each in ratios]),
            (ratios * used).mean(dim=1).cpu().numpy(),
            (up | down).cpu().numpy(),
        )


def freeze(trainer: Trainer, event: Event) -> FrozenRollout:
    """A copy of the rollout that was just collected; the next update of the trainer writes over its own.

    event: what `trainer.events()` just yielded. Changes nothing. Raises LabError if that is not RolloutCollected: any
    later, the policy is another one than the one that collected.
    """
    if not isinstance(event, RolloutCollected):
        raise LabError(f"freeze at RolloutCollected, the first event of an update; this one is {type(event).__name__}")
    state, rollout = trainer.state, copied(event.rollout)
    before = state.global_step - int(rollout.valid.sum())
    ppo = in_force(settings_at(trainer.config.ppo, state.live, before, state.total_timesteps), state.adapted)
    # a copy of the scaler takes this rollout in, as the trainer's own is about to
    reward = rewards_to_learn(rollout, ppo, copy.deepcopy(state.reward_scaler))
    statistics = {name: buffer.detach().clone() for name, buffer in state.model.named_buffers()}
    return FrozenRollout(rollout, reward, ppo, statistics)


def copied(rollout: Rollout) -> Rollout:
    """The same numbers in memory of their own."""
    return Rollout(**{field.name: _own(getattr(rollout, field.name)) for field in fields(rollout)})


def _own(value: Any) -> Any:
    return value if isinstance(value, int) else apply(lambda tensor: tensor.detach().clone(), value)
