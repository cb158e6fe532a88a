"""The metrics of an update. The losses are collected on the device and copied to the host once."""

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
    """Return the settings that can change during training, as used in this update.

    rates: the learning rates of "actor" and "critic".
    """
    return {
        "update/learning_rate": rates["actor"],
        "update/critic_learning_rate": rates["critic"],
        "update/clip_coef": ppo.clip_coef,
        "update/ent_coef": ppo.ent_coef,
    }


@torch.no_grad()
def loss_metrics(steps: Sequence[tuple[Loss, Tensor]], scaled: bool = False) -> dict[str, float]:
    """Return the number of gradient steps of an update and the mean of each loss metric over them.

    steps: loss and gradient norm () of each. Without any step there are no means.
    scaled: float16 gradients were multiplied by a scale factor. If they overflow, the step is skipped and the factor
        is reduced; skipped steps are counted and left out of the means.
    Raises NonFiniteError if another loss or norm is NaN or infinite. The weights are still intact then, because
    `gradient_step` takes no step with such a gradient.
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
    """Return the critic's explained variance over the valid rows of a rollout (T, N); {} if all returns are equal."""
    if not valid.any():
        return {}
    explained = explained_variance(value[valid], returns[valid]).item()
    return {} if math.isnan(explained) else {"update/explained_variance": explained}
