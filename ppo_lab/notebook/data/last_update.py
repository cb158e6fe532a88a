"""What an update learned from and what it made of it, as arrays: for the panel that looks inside."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ppo_lab.notebook.data.intention import Intention
from ppo_lab.notebook.data.intentions import intentions
from ppo_lab.ppo.advantages import normalized
from ppo_lab.ppo.batches import chunk_batch
from ppo_lab.ppo.rollout import Rollout
from ppo_lab.ppo.schedules import settings_at

if TYPE_CHECKING:
    from ppo_lab.models.actor_critic import ActorCritic
    from ppo_lab.training.trainer import Trainer

MOST_SAMPLES = 4096  # more than a picture has room for; taken evenly over the rollout


@dataclass(frozen=True)
class LastUpdate:
    """S samples of the rollout an update learned from (rows that are experience), and one environment's whole course.

    The policy and the critic before the update are those that collected it; `ratio` and `clipped` are of the policy
    after it.
    """

    update: int
    global_step: int  # after the update
    clip_coef: float  # in force
    normalize_advantage: str  # "minibatch", "rollout" or "never"
    ratio: np.ndarray  # (S,) pi_after(a|s) / pi_before(a|s)
    clipped: np.ndarray  # (S,) bool: the ratio is outside 1 +- clip_coef
    advantage: np.ndarray  # (S,) as GAE estimated it
    normalized: np.ndarray  # (S,) minus the mean, over the std of the rollout; as `advantage` if "never"
    value: np.ndarray  # (S,) what the critic expected before the update
    returns: np.ndarray  # (S,) what it was taught
    done: np.ndarray  # (T,) bool, of environment 0: an episode ended with this step
    # over the T steps of environment 0: what the policy after the update would do, and what was drawn, before a
    # Gaussian's numbers were clipped to the Box; one for each key of the action space
    parts: tuple[Intention, ...]

    @property
    def action(self) -> np.ndarray | None:
        """(T,) of a Discrete action, (T, k) of others, as `parts` have it; None for a Dict of actions."""
        part = self._lone
        if part is None:
            return None
        return part.taken[:, 0] if self.probabilities is not None else part.taken

    @property
    def probabilities(self) -> np.ndarray | None:
        """(T, n) of a Discrete action, by the policy after the update; None for others."""
        part = self._lone
        known = None if part is None else part.probabilities
        return known[:, 0] if known is not None and known.shape[1] == 1 else None

    @property
    def mean(self) -> np.ndarray | None:
        """(T, A) of a Box action, in its units; None for others."""
        return None if self._lone is None else self._lone.mean

    @property
    def std(self) -> np.ndarray | None:
        """(T, A) of a Box action, in its units; None for others."""
        return None if self._lone is None else self._lone.std

    @property
    def _lone(self) -> Intention | None:
        return self.parts[0] if len(self.parts) == 1 else None


@torch.no_grad()
def look_inside(trainer: Trainer, advantage: Tensor, returns: Tensor, statistics: Mapping[str, Tensor]) -> LastUpdate:
    """The update that was just done, seen from its boundary. Changes nothing.

    advantage, returns: (T, N), as `AdvantagesEstimated` brought them. statistics: the model's buffers at the beginning
    of the rollout: observations are seen through those of that time, or the ratios would move for another reason.
    """
    rollout, state = trainer.rollout, trainer.state
    model = copy.deepcopy(state.model)
    for name, buffer in model.named_buffers():
        buffer.copy_(statistics[name])
    before = state.global_step - int(rollout.valid.sum())
    ppo = settings_at(trainer.config.ppo, state.live, before, state.total_timesteps)
    used = advantage if ppo.normalize_advantage == "never" else normalized(advantage, rollout.valid)
    # a critic that is asked again between the passes writes its newer values into the rollout
    value = returns - advantage if ppo.recompute_advantage else rollout.value
    rows = torch.arange(advantage.numel(), device=advantage.device).view_as(advantage)  # (T, N)
    batch = chunk_batch(rollout, rows, rows, _some_chunks(rollout))  # (L, B), with the numbers of its rows
    distribution = model.distribution(batch.obs, batch.memory, batch.starts)
    ratio = batch.experience((distribution.log_prob(batch.action) - batch.log_prob).exp()).flatten()  # (S,)
    index = batch.experience(batch.returns).flatten()  # (S,) of T * N

    def samples(column: Tensor) -> np.ndarray:
        return _array(column.flatten()[index])

    return LastUpdate(
        update=state.update,
        global_step=state.global_step,
        clip_coef=ppo.clip_coef,
        normalize_advantage=ppo.normalize_advantage,
        ratio=_array(ratio),
        clipped=_array((ratio - 1.0).abs() > ppo.clip_coef),
        advantage=samples(advantage),
        normalized=samples(used),
        value=samples(value),
        returns=samples(returns),
        done=_array(rollout.done[:, 0]),
        parts=_course(model, rollout),
    )


def _some_chunks(rollout: Rollout) -> Tensor:
    """Numbers of chunks for about MOST_SAMPLES rows, evenly over those with experience, (B,); of rows without memory.

    Whole chunks, because what a recurrent policy does at a row depends on those before it.
    """
    L, valid = rollout.chunk_length, rollout.valid
    known = valid if L == 1 else torch.stack([valid[rows].any(0) for _, rows in rollout.chunks()])  # (chunks, N)
    chunks = known.flatten().nonzero().squeeze(-1)
    most = min(len(chunks), max(1, MOST_SAMPLES // L))
    return chunks[torch.linspace(0, len(chunks) - 1, most, device=chunks.device).round().long()]


def _course(model: ActorCritic, rollout: Rollout) -> tuple[Intention, ...]:
    """What the model would do at the T steps of environment 0."""
    T, N = rollout.reward.shape
    chunks = torch.arange(-(-T // rollout.chunk_length), device=rollout.reward.device) * N
    batch = chunk_batch(rollout, rollout.value, rollout.value, chunks)  # (L, chunks)
    distribution = model.distribution(batch.obs, batch.memory, batch.starts)
    parts = intentions(model.actor_head, distribution, batch.action, drawn=True)

    def in_time(rows: np.ndarray) -> np.ndarray:
        """(L, chunks, *x) -> (T, *x), without what fills up the last chunk."""
        return rows.swapaxes(0, 1).reshape(-1, *rows.shape[2:])[:T]

    return tuple(part.map(in_time) for part in parts)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy().copy()
