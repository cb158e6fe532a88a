"""The PPO loss and its parts. Pure functions of tensors; every mean is over all rows given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ppo_lab.models.clip import clip


class Loss(NamedTuple):
    """The loss of one minibatch and what it was made of; scalars, on the device."""

    total: Tensor  # () policy + vf_coef * value - ent_coef * entropy; the only one with a gradient
    policy: Tensor  # () clipped surrogate
    value: Tensor  # () mean squared error of the critic
    entropy: Tensor  # () mean entropy of the policy in nats (not negated)
    approx_kl: Tensor  # () KL(old || new), estimated
    clip_fraction: Tensor  # () share of rows whose ratio left [1 - clip_coef, 1 + clip_coef]


Coefficient = TypeVar("Coefficient", float, Tensor)  # as a tensor () it can vary in a program that stays as it is


def clipped_surrogate(
    ratio: Tensor, advantage: Tensor, clip_coef: Coefficient, dual_clip: float | None = None
) -> Tensor:
    """Return PPO's objective as a loss, () (Schulman et al. 2017, eq. 7), with r = pi(a|s) / pi_old(a|s):

        L = -mean(min(r * A, clip(r, 1 - eps, 1 + eps) * A))

    No gradient where the ratio has already moved past the clip in the direction the advantage asks for.
    dual_clip: where A < 0 the objective is at least dual_clip * A (Ye et al. 2020, "Mastering complex control"), so
    that a sample far outside, whose ratio has exploded, cannot dominate the gradient: it has none.
    """
    clipped = clip(ratio, 1.0 - clip_coef, 1.0 + clip_coef)
    objective = torch.minimum(ratio * advantage, clipped * advantage)
    if dual_clip is not None:
        objective = torch.where(advantage < 0, torch.maximum(objective, dual_clip * advantage), objective)
    return -objective.mean()


def value_loss(value: Tensor, old_value: Tensor, returns: Tensor, value_clip_coef: float | None = None) -> Tensor:
    """Return mean((V - R)^2), (). With a clip, the larger of that and the error of V kept within +- clip of V_old:

    L = mean(max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2))
    """
    error = (value - returns).square()
    if value_clip_coef is None:
        return error.mean()
    clipped = old_value + clip(value - old_value, -value_clip_coef, value_clip_coef)
    return torch.maximum(error, (clipped - returns).square()).mean()


def approximate_kl(log_ratio: Tensor) -> Tensor:
    """Estimate KL(old || new) from samples of old, (): mean((r - 1) - log r), never negative (Schulman 2020, "k3")."""
    return (log_ratio.expm1() - log_ratio).mean()


def weighted_mean(parts: Sequence[tuple[Loss, float]]) -> Loss:
    """Average the losses of the parts of a minibatch, weighted by their shares of its rows; without a gradient."""
    if len(parts) == 1:
        return parts[0][0]
    shares = torch.tensor([share for _, share in parts], device=parts[0][0].total.device)
    rows = torch.stack([torch.stack([*part]).detach() for part, _ in parts])  # (P, 6)
    return Loss(*(rows * shares.unsqueeze(-1)).sum(0))


def ppo_loss(
    log_prob: Tensor,  # (L, B) of the recorded actions under the policy now
    entropy: Tensor,  # (L, B)
    value: Tensor,  # (L, B) of the critic now
    old_log_prob: Tensor,  # (L, B) what the rollout recorded
    old_value: Tensor,  # (L, B)
    advantage: Tensor,  # (L, B) as it is to be used: normalise before
    returns: Tensor,  # (L, B)
    *,
    clip_coef: Coefficient,
    vf_coef: float | Tensor,
    ent_coef: float | Tensor,  # a tensor () is taken for another number than 0, and not looked at
    value_clip_coef: float | None = None,
    dual_clip: float | None = None,
) -> Loss:
    """Return clipped surrogate + vf_coef * value loss - ent_coef * entropy, with the numbers that the dials show."""
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    policy = clipped_surrogate(ratio, advantage, clip_coef, dual_clip)
    critic = value_loss(value, old_value, returns, value_clip_coef)
    mean_entropy = entropy.mean()
    total = policy + vf_coef * critic
    if isinstance(ent_coef, Tensor) or ent_coef:
        total = total - ent_coef * mean_entropy
    with torch.no_grad():
        kl = approximate_kl(log_ratio.detach())
        clip_fraction = ((ratio.detach() - 1.0).abs() > clip_coef).to(ratio.dtype).mean()
    return Loss(total, policy.detach(), critic.detach(), mean_entropy.detach(), kl, clip_fraction)
