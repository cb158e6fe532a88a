"""The PPO loss and its parts, as pure functions of tensors. Every mean is over all rows of the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ppo_lab.models.clip import clip


class Loss(NamedTuple):
    """The loss of one minibatch and its parts: scalar tensors on the device."""

    total: Tensor  # () policy + vf_coef * value - ent_coef * entropy; only this one has a gradient
    policy: Tensor  # () clipped surrogate
    value: Tensor  # () mean squared error of the critic
    entropy: Tensor  # () mean entropy of the policy in nats (not negated)
    approx_kl: Tensor  # () estimate of KL(old || new) in nats
    clip_fraction: Tensor  # () share of rows whose ratio is outside [1 - clip_coef, 1 + clip_coef]


Coefficient = TypeVar("Coefficient", float, Tensor)  # a tensor () can change its value in a compiled or captured graph


def clipped_surrogate(
    ratio: Tensor, advantage: Tensor, clip_coef: Coefficient, dual_clip: float | None = None
) -> Tensor:
    """Return the negative clipped surrogate objective of PPO, () (Schulman et al. 2017, eq. 7):

        L = -mean(min(r * A, clip(r, 1 - eps, 1 + eps) * A)),   r = pi(a|s) / pi_old(a|s),   eps = clip_coef

    A row has no gradient once its ratio is beyond the clip range in the direction that the advantage favours.
    ratio, advantage: of equal shape, (L, B). dual_clip: c; where A < 0 the objective is at least c * A (Ye et al. 2020,
    "Mastering Complex Control in MOBA Games with Deep Reinforcement Learning"). A row with r > c then has no gradient,
    so that very large ratios cannot dominate the update.
    """
    clipped = clip(ratio, 1.0 - clip_coef, 1.0 + clip_coef)
    objective = torch.minimum(ratio * advantage, clipped * advantage)
    if dual_clip is not None:
        objective = torch.where(advantage < 0, torch.maximum(objective, dual_clip * advantage), objective)
    return -objective.mean()


def value_loss(value: Tensor, old_value: Tensor, returns: Tensor, value_clip_coef: float | None = None) -> Tensor:
    """Return the mean squared error of the critic, (); with a clip, the larger of this error and that of a clipped V.

        L = mean((V - R)^2)
        L = mean(max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2))   with c = value_clip_coef

    value, old_value, returns: of equal shape, (L, B). The clip is not in the paper; it is from OpenAI Baselines.
    """
    error = (value - returns).square()
    if value_clip_coef is None:
        return error.mean()
    clipped = old_value + clip(value - old_value, -value_clip_coef, value_clip_coef)
    return torch.maximum(error, (clipped - returns).square()).mean()


def approximate_kl(log_ratio: Tensor) -> Tensor:
    """Estimate KL(old || new) in nats from samples of old, (): mean((r - 1) - log r), with r = pi / pi_old.

    This is the estimator k3 of Schulman 2020, "Approximating KL Divergence". It is never negative.
    """
    return (log_ratio.expm1() - log_ratio).mean()


def weighted_mean(parts: Sequence[tuple[Loss, float]]) -> Loss:
    """Average the losses of the parts of a minibatch, weighted by their shares of the rows; without a gradient.

    A single part is returned unchanged, with its gradient.
    """
    if len(parts) == 1:
        return parts[0][0]
    shares = torch.tensor([share for _, share in parts], device=parts[0][0].total.device)
    rows = torch.stack([torch.stack([*part]).detach() for part, _ in parts])  # (P, 6)
    return Loss(*(rows * shares.unsqueeze(-1)).sum(0))


def ppo_loss(
    log_prob: Tensor,  # (L, B) log pi(a|s) of the recorded actions under the current policy
    entropy: Tensor,  # (L, B) of the current policy, in nats
    value: Tensor,  # (L, B) V(s) of the current critic
    old_log_prob: Tensor,  # (L, B) log pi_old(a|s), from the rollout
    old_value: Tensor,  # (L, B) V_old(s), from the rollout
    advantage: Tensor,  # (L, B) normalised already, if it is to be
    returns: Tensor,  # (L, B)
    *,
    clip_coef: Coefficient,
    vf_coef: float | Tensor,
    ent_coef: float | Tensor,  # 0 leaves the entropy term out; a tensor () is not compared with 0 (no device sync)
    value_clip_coef: float | None = None,
    dual_clip: float | None = None,
) -> Loss:
    """Return the loss of PPO (Schulman et al. 2017, eq. 9, negated) and the metrics that are shown during training:

        total = clipped surrogate loss + vf_coef * value loss - ent_coef * mean entropy

    All means are over all rows. Only the total has a gradient.
    """
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
