"""The data and the effect of the last update, as arrays, for the panel "Inside the update"."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ppo_lab.notebook.data.action_arrays import ActionPart
from ppo_lab.notebook.data.distribution_summary import action_parts
from ppo_lab.ppo.advantages import normalized
from ppo_lab.ppo.batches import chunk_batch
from ppo_lab.ppo.rollout import Rollout
from ppo_lab.ppo.schedules import settings_at

if TYPE_CHECKING:
    from ppo_lab.models.actor_critic import ActorCritic
    from ppo_lab.training.trainer import Trainer

MOST_SAMPLES = 4096  # more than a picture can show; taken evenly over the rollout


@dataclass(frozen=True)
class LastUpdate:
    """S samples of valid rows of the rollout that an update learned from, and all T steps of environment 0.

    "Before the update" means the policy and the critic that collected the rollout; `ratio` and `clipped` are of the
    policy after the update.
    """

    update: int
    global_step: int  # after the update
    clip_coef: float  # in force
    normalize_advantage: str  # "minibatch", "rollout" or "never"
    ratio: np.ndarray  # (S,) pi_after(a|s) / pi_before(a|s)
    clipped: np.ndarray  # (S,) bool: the ratio is outside 1 +- clip_coef
    advantage: np.ndarray  # (S,) as GAE estimated it
    normalized: np.ndarray  # (S,) normalized over the rollout; as `advantage` if "never"
    value: np.ndarray  # (S,) the critic's value before the update
    returns: np.ndarray  # (S,) the critic's target
    done: np.ndarray  # (T,) bool, of environment 0: an episode ended with this step
    # over the T steps of environment 0, one per key of the action space: the action distribution of the policy after
    # the update, and the actions that were drawn, before a Gaussian's are clipped to the Box
    parts: tuple[ActionPart, ...]

    @property
    def action(self) -> np.ndarray | None:
        """The actions that were drawn: (T,) if Discrete, (T, k) otherwise; None for a Dict of actions."""
        part = self._lone
        if part is None:
            return None
        return part.taken[:, 0] if self.probabilities is not None else part.taken

    @property
    def probabilities(self) -> np.ndarray | None:
        """(T, n) of a Discrete action, of the policy after the update; None for others."""
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
    def _lone(self) -> ActionPart | None:
        return self.parts[0] if len(self.parts) == 1 else None


@torch.no_grad()
def look_inside(trainer: Trainer, advantage: Tensor, returns: Tensor, statistics: Mapping[str, Tensor]) -> LastUpdate:
    """Return the data of the update that was just done. Call it at the update's boundary. Does not change the trainer.

    advantage, returns: (T, N), from `AdvantagesEstimated`. statistics: the model's buffers when the rollout was
    collected: with newer ones, observations are normalised differently and the ratios change without a policy change.
    """
    rollout, state = trainer.rollout, trainer.state
    model = copy.deepcopy(state.model)
    for name, buffer in model.named_buffers():
        buffer.copy_(statistics[name])
    before = state.global_step - int(rollout.valid.sum())
    ppo = settings_at(trainer.config.ppo, state.live, before, state.total_timesteps)
    used = advantage if ppo.normalize_advantage == "never" else normalized(advantage, rollout.valid)
    # recompute_advantage overwrites the rollout's values with newer ones between the passes
    value = returns - advantage if ppo.recompute_advantage else rollout.value
    rows = torch.arange(advantage.numel(), device=advantage.device).view_as(advantage)  # (T, N)
    batch = chunk_batch(rollout, rows, rows, _some_chunks(rollout))  # (L, B), row indices in place of returns
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
    """Return the indices (B,) of chunks with valid rows, evenly spaced, about MOST_SAMPLES rows in total.

    Whole chunks, because a recurrent policy's action depends on earlier rows. Without memory, a chunk is one row.
    """
    L, valid = rollout.chunk_length, rollout.valid
    known = valid if L == 1 else torch.stack([valid[rows].any(0) for _, rows in rollout.chunks()])  # (chunks, N)
    chunks = known.flatten().nonzero().squeeze(-1)
    most = min(len(chunks), max(1, MOST_SAMPLES // L))
    return chunks[torch.linspace(0, len(chunks) - 1, most, device=chunks.device).round().long()]


def _course(model: ActorCritic, rollout: Rollout) -> tuple[ActionPart, ...]:
    """Return the model's action distributions at the T steps of environment 0."""
    T, N = rollout.reward.shape
    chunks = torch.arange(-(-T // rollout.chunk_length), device=rollout.reward.device) * N
    batch = chunk_batch(rollout, rollout.value, rollout.value, chunks)  # (L, chunks)
    distribution = model.distribution(batch.obs, batch.memory, batch.starts)
    parts = action_parts(model.actor_head, distribution, batch.action, drawn=True)

    def in_time(rows: np.ndarray) -> np.ndarray:
        """Reshape (L, chunks, *x) to (T, *x), without the padding of the last chunk."""
        return rows.swapaxes(0, 1).reshape(-1, *rows.shape[2:])[:T]

    return tuple(part.map(in_time) for part in parts)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy().copy()
