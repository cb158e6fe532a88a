"""What an update learned from and what it made of it, as arrays: for the panel that looks inside."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ppo_lab.advantages import normalized
from ppo_lab.schedules import settings_at

if TYPE_CHECKING:
    from ppo_lab.trainer import Trainer

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
    action: np.ndarray  # (T, *action) of environment 0, as the policy drew it
    done: np.ndarray  # (T,) bool, of environment 0: an episode ended with this step
    probabilities: np.ndarray | None  # (T, n) of its actions, by the policy after the update; None: continuous
    mean: np.ndarray | None  # (T, A) of a continuous action; None: discrete
    std: np.ndarray | None  # (T, A)


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
    T = len(rollout)
    before = state.global_step - int(rollout.valid.sum())
    ppo = settings_at(trainer.config.ppo, state.live, before, state.total_timesteps)
    rows = rollout.valid.flatten().nonzero().squeeze(-1)  # (M,)
    rows = rows[torch.linspace(0, len(rows) - 1, min(len(rows), MOST_SAMPLES)).round().long()]  # (S,)
    obs, action, starts = (part.flatten(0, 1)[rows] for part in (rollout.obs[:T], rollout.action, rollout.starts))
    log_prob, _, _ = model.evaluate(obs.unsqueeze(0), action.unsqueeze(0), None, starts.unsqueeze(0))  # (1, S)
    ratio = (log_prob.squeeze(0) - rollout.log_prob.flatten()[rows]).exp()
    used = advantage if ppo.normalize_advantage == "never" else _over_all(advantage, rollout.valid)
    distribution, _ = model.step(rollout.obs[:T, 0], None, rollout.starts[:, 0])  # over the T steps of one environment
    log_probs, mean, std = (getattr(distribution, name, None) for name in ("log_probs", "mean", "std"))
    return LastUpdate(
        update=state.update,
        global_step=state.global_step,
        clip_coef=ppo.clip_coef,
        normalize_advantage=ppo.normalize_advantage,
        ratio=_array(ratio),
        clipped=_array((ratio - 1.0).abs() > ppo.clip_coef),
        advantage=_array(advantage.flatten()[rows]),
        normalized=_array(used.flatten()[rows]),
        value=_array(rollout.value.flatten()[rows]),
        returns=_array(returns.flatten()[rows]),
        action=_array(rollout.action[:, 0]),
        done=_array(rollout.done[:, 0]),
        probabilities=None if log_probs is None else _array(log_probs.exp()),
        mean=None if mean is None else _array(mean),
        std=None if std is None or mean is None else _array(std.expand_as(mean)),
    )


def _over_all(advantage: Tensor, valid: Tensor) -> Tensor:
    return advantage.masked_scatter(valid, normalized(advantage[valid]))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy().copy()
