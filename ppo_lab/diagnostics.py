"""The numbers of an update, gathered with one look at the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ppo_lab.advantages import explained_variance
from ppo_lab.errors import NonFiniteError
from ppo_lab.losses import Loss

LOSS_METRICS = (
    "loss/policy",
    "loss/value",
    "loss/entropy",
    "update/approx_kl",
    "update/clip_fraction",
    "update/grad_norm",
)


@torch.no_grad()
def loss_metrics(losses: Sequence[Loss], grad_norms: Sequence[Tensor]) -> dict[str, float]:
    """Means over the gradient steps of an update; nothing if there was none.

    Raises NonFiniteError if one was not finite: `gradient_step` did not take that one, and nothing is broken.
    """
    if not losses:
        return {}
    rows = torch.stack([torch.stack([*loss, norm]) for loss, norm in zip(losses, grad_norms, strict=True)])  # (S, 7)
    means = rows.mean(0).tolist()
    if not all(map(math.isfinite, means)):
        step = int((~rows.isfinite().all(-1)).nonzero()[0])
        total, norm = rows[step, 0].item(), rows[step, -1].item()
        raise NonFiniteError(
            f"minibatch {step + 1} of {len(rows)}: loss {total:g}, gradient norm {norm:g}; that step was not taken. "
            "Try a smaller learning_rate, normalize_reward or normalize_obs"
        )
    return dict(zip(LOSS_METRICS, means[1:], strict=True))


def critic_metrics(value: Tensor, returns: Tensor, valid: Tensor) -> dict[str, float]:
    """Explained variance of the critic over a rollout (T, N); nothing where all returns are equal."""
    explained = explained_variance(value[valid], returns[valid]).item()
    return {} if math.isnan(explained) else {"update/explained_variance": explained}
