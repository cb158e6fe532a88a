"""Advantage estimation: how much better an action was than the critic expected. Pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    reward: Tensor,  # (T, N) r_t, the reward of the action at t
    value: Tensor,  # (T, N) V(s_t)
    next_value: Tensor,  # (T, N) V(s_{t+1}), where s_{t+1} is the state after the action, before any reset
    terminated: Tensor,  # (T, N) bool: the task ended, there is no further reward
    done: Tensor,  # (T, N) bool: terminated or truncated, row t + 1 is another episode
    valid: Tensor,  # (T, N) bool: False where the row is not a transition (the environment was only reset)
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Compute generalised advantage estimates (Schulman et al. 2016, eq. 16). Return advantage, returns: (T, N) each.

        delta_t   = r_t + gamma * V(s_{t+1}) * (1 - terminated_t) - V(s_t)
        A_t       = delta_t + gamma * lambda * (1 - done_t) * A_{t+1}
        returns_t = A_t + V(s_t)

    `terminated` stops the bootstrap, `done` stops the sum of deltas: after a truncation the episode would have
    continued, so V(s_{t+1}) still counts, but A_{t+1} belongs to another episode. Invalid rows get advantage 0, and
    nothing propagates through them.
    """
    delta = torch.where(valid, reward + gamma * next_value * ~terminated - value, 0.0)  # (T, N)
    decay = (~done & valid).to(delta.dtype) * (gamma * gae_lambda)  # (T, N)
    advantage = discounted_sums(delta, decay)
    return advantage, advantage + value


def discounted_sums(term: Tensor, decay: Tensor) -> Tensor:
    """Solve x_t = term_t + decay_t * x_{t+1} with x_T = 0: term and decay (T, N) -> x (T, N).

    A parallel scan (Hillis and Steele 1986) takes log2(T) rounds instead of T. After a round, x_t is the sum of the
    first `span` terms from t on, and decay_t is the factor of the terms after those. The next round adds to x_t the sum
    that starts at t + span, times this factor, which doubles the span.
    """
    x, span = term, 1
    while span < len(term):
        x, longer = x.clone(), x
        decay, factor = decay.clone(), decay
        x[:-span].addcmul_(factor[:-span], longer[span:])
        decay[:-span].mul_(factor[span:])
        span *= 2
    return x


def normalized(advantage: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return (A - mean) / std over all rows, in the shape of A; with `valid` over those rows only.

    The other rows are unchanged. A single row, or equal rows, become 0. Mean and std are computed in float64, and a std
    within rounding error (std <= 1e-6 * max(1, |mean|)) counts as 0: in float32, 2048 equal advantages near 1000 would
    otherwise become noise of size 1.5.
    """
    if valid is not None:
        return advantage.masked_scatter(valid, normalized(advantage[valid]))
    return _normalized(advantage.reshape(1, -1)).view(advantage.shape)


def normalized_parts(advantage: Tensor, parts: int) -> Tensor:
    """Apply `normalized` to each of the parts of `advantage.tensor_split(parts)`, (M,) -> (M,)."""
    size, longer = divmod(len(advantage), parts)
    split = longer * (size + 1)  # the first `longer` parts have one row more than the others
    both = advantage[:split].view(longer, size + 1), advantage[split:].view(parts - longer, size)
    return torch.cat([_normalized(rows).flatten() for rows in both if len(rows)])


def _normalized(rows: Tensor) -> Tensor:
    """Normalise each row of rows (K, M) separately, to mean 0 and std 1."""
    wide = rows.double()
    var, mean = torch.var_mean(wide, dim=-1, correction=0, keepdim=True)  # (K, 1)
    std = var.sqrt()
    factor = torch.where(std > 1e-6 * mean.abs().clamp(min=1.0), 1.0 / std, 0.0)
    return ((wide - mean) * factor).to(rows.dtype)


def explained_variance(value: Tensor, returns: Tensor) -> Tensor:
    """Return the explained variance of the critic, (): 1 - Var(returns - value) / Var(returns).

    It is 1 for a perfect critic and 0 for one that always predicts the mean; NaN if Var(returns) is 0.
    """
    var_returns = returns.double().var(correction=0)
    residual = (returns.double() - value.double()).var(correction=0)
    return torch.where(var_returns > 0, 1.0 - residual / var_returns, torch.nan)
