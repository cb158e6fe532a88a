"""The numbers of an update, gathered with one look at the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ppo_lab.config import PPOConfig
from ppo_lab.errors import NonFiniteError
from ppo_lab.ppo.advantages import explained_variance
from ppo_lab.ppo.losses import Loss

LOSS_METRICS = (
    "loss/policy",
    "loss/value",
    "loss/entropy",
    "update/approx_kl",
    "update/clip_fraction",
    "update/grad_norm",
)


def settings_metrics(ppo: PPOConfig, rates: Mapping[str, float]) -> dict[str, float]:
    """Return the settings that move, as they were in this update. rates: of "actor" and "critic"."""
    return {
        "update/learning_rate": rates["actor"],
        "update/critic_learning_rate": rates["critic"],
        "update/clip_coef": ppo.clip_coef,
        "update/ent_coef": ppo.ent_coef,
    }


@torch.no_grad()
def loss_metrics(steps: Sequence[tuple[Loss, Tensor]], scaled: bool = False) -> dict[str, float]:
    """Return the number of gradient steps of an update and means over them; a metric that does not exist is absent.

    steps: loss and gradient norm () of each.
    scaled: gradients were scaled up for float16, where a step that overflows is called off and the next is smaller.
    Raises NonFiniteError if one was not finite: `gradient_step` did not take that one, and nothing is broken.
    """
    taken = {"update/gradient_steps": float(len(steps))}
    if not steps:
        return taken
    rows = torch.stack([number for loss, norm in steps for number in (*loss, norm)]).view(len(steps), -1)  # (S, 7)
    if scaled:
        overflowed = ~rows[:, -1].isfinite() & rows[:, :-1].isfinite().all(-1)  # (S,)
        taken |= {"update/skipped_steps": float(overflowed.sum())}
        rows = rows[~overflowed]
        if not len(rows):
            return taken
    means = rows.double().mean(0).tolist()  # float32 means of huge losses would overflow
    if not all(map(math.isfinite, means)):
        step = int((~rows.isfinite().all(-1)).nonzero()[0])
        total, norm = rows[step, 0].item(), rows[step, -1].item()
        raise NonFiniteError(
            f"minibatch {step + 1} of {len(rows)}: loss {total:g}, gradient norm {norm:g}; that step was not taken. "
            "Try a smaller learning_rate, normalize_reward or normalize_obs"
        )
    return taken | dict(zip(LOSS_METRICS, means[1:], strict=True))


def critic_metrics(value: Tensor, returns: Tensor, valid: Tensor) -> dict[str, float]:
    """Return the critic's explained variance over a rollout (T, N); {} where all returns are equal."""
    if not valid.any():
        return {}
    explained = explained_variance(value[valid], returns[valid]).item()
    return {} if math.isnan(explained) else {"update/explained_variance": explained}
