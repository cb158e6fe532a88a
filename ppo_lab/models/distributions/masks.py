"""Action masks, which say what actions are legal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ppo_lab.errors import EnvError

# exp() of both is exactly 0, and sums and differences of them are finite: no 0 * inf, so no NaN in an entropy or a KL.
# PADDING is below ILLEGAL: even in a row without a legal action, an index that does not exist is never drawn.
ILLEGAL = -1e38
PADDING = -3e38


def forbid(logits: Tensor, mask: Tensor) -> Tensor:
    """Return logits, ILLEGAL where mask (same shape; True = legal) is False: probability and gradient are 0 there."""
    return torch.where(mask if mask.dtype == torch.bool else mask != 0, logits, ILLEGAL)


def check_mask(mask: Tensor, layout: Sequence[int], live: Tensor | None = None) -> None:
    """Raise EnvError if the masks (*batch, N, K) leave some component of an action without a legal choice.

    layout: number of choices of each component, in their order in K (`head.mask_layout`). live: (*batch, N) bool,
    False where no action is chosen, such as in a reset row; None: everywhere True. The error names the environment
    (last axis of the batch). Without this check, training would continue with actions that do not exist.
    """
    if mask.shape[-1] != sum(layout):
        raise EnvError(
            f"action_mask has {mask.shape[-1]} entries; the action space takes {sum(layout)}"
            + (f": {' + '.join(map(str, layout))}" if 1 < len(layout) <= 16 else "")
        )
    parts = mask.bool().split(list(layout), dim=-1)
    possible = torch.stack([part.any(-1) for part in parts], dim=-1)  # (*batch, N, components)
    if live is not None:
        possible |= ~live.to(possible.device).unsqueeze(-1)
    if bool(possible.all()):
        return
    *before, env, component = (~possible).nonzero()[0].tolist()
    where = f" at step {before[0]} of the rollout" if len(before) == 1 else ""
    which = f" for component {component} of the action" if len(layout) > 1 else ""
    raise EnvError(f"environment {env} has no legal action{which}{where}: its action_mask is False everywhere")
