"""Advantages: how much better an action was than the critic expected. Pure functions of tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gae(
    reward: Tensor,  # (T, N) what the action at t earned
    value: Tensor,  # (T, N) V(s_t)
    next_value: Tensor,  # (T, N) V(what the action led to), also where the environment then started anew
    terminated: Tensor,  # (T, N) bool: the task ended, nothing comes after
    done: Tensor,  # (T, N) bool: terminated or truncated, row t+1 is another episode
    valid: Tensor,  # (T, N) bool: False where the row is no experience
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016): advantage and returns, each (T, N).

        delta_t   = r_t + gamma * V(s_{t+1}) * (1 - terminated_t) - V(s_t)
        A_t       = delta_t + gamma * lambda * (1 - done_t) * A_{t+1}
        returns_t = A_t + V(s_t)

    `terminated` cuts the bootstrap, `done` cuts the trace: an episode that was only cut off would have gone on earning
    V(s_{t+1}). Rows that are no experience get advantage 0 and hand nothing on.
    """
    delta = torch.where(valid, reward + gamma * next_value * ~terminated - value, 0.0)  # (T, N)
    decay = (~done & valid).to(delta.dtype) * (gamma * gae_lambda)  # (T, N)
    rows, kept = [*delta.unbind()], decay.unbind()
    for t in range(len(rows) - 2, -1, -1):
        rows[t] = torch.addcmul(rows[t], kept[t], rows[t + 1])
    advantage = torch.stack(rows)
    return advantage, advantage + value


def normalized(advantage: Tensor, valid: Tensor | None = None) -> Tensor:
    """(A - mean) / std over all rows, in the shape it came; with `valid` over those rows, and the others stay.

    The moments are float64 and a spread below rounding (std <= 1e-6 * max(1, |mean|)) counts as none: in float32, 2048
    equal advantages near 1000 would come out as noise of size 1.5. One row, or equal rows, become 0.
    """
    if valid is not None:
        return advantage.masked_scatter(valid, normalized(advantage[valid]))
    wide = advantage.double()
    var, mean = torch.var_mean(wide, correction=0)
    if var.device.type == "cpu":  # a look at memory that is here costs less than operations on single numbers
        spread, middle = math.sqrt(var), mean.item()
        scale = 1.0 / spread if spread > 1e-6 * max(1.0, abs(middle)) else 0.0
        return ((wide - middle) * scale).to(advantage.dtype)
    std = var.sqrt()
    factor = torch.where(std > 1e-6 * mean.abs().clamp(min=1.0), 1.0 / std, 0.0)
    return ((wide - mean) * factor).to(advantage.dtype)


def explained_variance(value: Tensor, returns: Tensor) -> Tensor:
    """1 - Var(returns - value) / Var(returns): 1 for a perfect critic, 0 for the mean; NaN where Var(returns) is 0."""
    var_returns = returns.double().var(correction=0)
    residual = (returns.double() - value.double()).var(correction=0)
    return torch.where(var_returns > 0, 1.0 - residual / var_returns, torch.nan)
