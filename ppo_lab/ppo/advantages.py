"""Advantages: how much better an action was than the critic expected. Pure functions of tensors."""

from __future__ import annotations

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
    """Compute generalised advantage estimates (Schulman et al. 2016): advantage and returns, each (T, N).

        delta_t   = r_t + gamma * V(s_{t+1}) * (1 - terminated_t) - V(s_t)
        A_t       = delta_t + gamma * lambda * (1 - done_t) * A_{t+1}
        returns_t = A_t + V(s_t)

    `terminated` cuts the bootstrap, `done` cuts the trace: an episode that was only cut off would have gone on earning
    V(s_{t+1}). Rows that are no experience get advantage 0 and hand nothing on.
    """
    delta = torch.where(valid, reward + gamma * next_value * ~terminated - value, 0.0)  # (T, N)
    decay = (~done & valid).to(delta.dtype) * (gamma * gae_lambda)  # (T, N)
    advantage = discounted_sums(delta, decay)
    return advantage, advantage + value


def discounted_sums(term: Tensor, decay: Tensor) -> Tensor:
    """Solve x_t = term_t + decay_t * x_{t+1} with x_T = 0: (T, N) -> (T, N).

    By doubling (Hillis and Steele 1986), in log2(T) rounds instead of T: x holds sums of `span` terms, decay the factor
    of what follows them, and a round appends to each sum the one that begins where it ends.
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
    """Return (A - mean) / std over all rows, in the shape of A; with `valid` over those rows: the others stay.

    The moments are float64 and a spread below rounding (std <= 1e-6 * max(1, |mean|)) counts as none: in float32, 2048
    equal advantages near 1000 would come out as noise of size 1.5. One row, or equal rows, become 0.
    """
    if valid is not None:
        return advantage.masked_scatter(valid, normalized(advantage[valid]))
    return _normalized(advantage.reshape(1, -1)).view(advantage.shape)


def normalized_parts(advantage: Tensor, parts: int) -> Tensor:
    """Apply `normalized` to each of the parts that `advantage.tensor_split(parts)` would give, (M,) -> (M,)."""
    size, longer = divmod(len(advantage), parts)
    split = longer * (size + 1)  # the first parts have one row more
    both = advantage[:split].view(longer, size + 1), advantage[split:].view(parts - longer, size)
    return torch.cat([_normalized(rows).flatten() for rows in both if len(rows)])


def _normalized(rows: Tensor) -> Tensor:
    """Normalise each row of (K, M) on its own."""
    wide = rows.double()
    var, mean = torch.var_mean(wide, dim=-1, correction=0, keepdim=True)  # (K, 1)
    std = var.sqrt()
    factor = torch.where(std > 1e-6 * mean.abs().clamp(min=1.0), 1.0 / std, 0.0)
    return ((wide - mean) * factor).to(rows.dtype)


def explained_variance(value: Tensor, returns: Tensor) -> Tensor:
    """Return 1 - Var(returns - value) / Var(returns): 1 for a perfect critic, 0 for the mean; NaN where Var(returns) is
    0.
    """
    var_returns = returns.double().var(correction=0)
    residual = (returns.double() - value.double()).var(correction=0)
    return torch.where(var_returns > 0, 1.0 - residual / var_returns, torch.nan)
