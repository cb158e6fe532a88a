"""Read an action distribution into arrays: probabilities of discrete components, mean and std of continuous ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ppo_lab.models.distributions import (
    Beta,
    BetaHead,
    Categorical,
    CategoricalHead,
    DiagonalGaussian,
    Distribution,
    GaussianHead,
    Head,
    Joint,
    JointHead,
    MultiCategorical,
    MultiCategoricalHead,
    SquashedGaussian,
    SquashedHead,
)
from ppo_lab.models.distributions.box_heads import BoxRange
from ppo_lab.models.distributions.heads import LeafHead
from ppo_lab.models.distributions.joint import split
from ppo_lab.notebook.data.action_arrays import ActionPart

NODES, NODES_REACH = 65, 6.0  # quadrature for the moments of a squashed action: nodes, and their reach in std


@torch.no_grad()
def action_parts(head: Head, distribution: Distribution, action: Tensor, drawn: bool = False) -> tuple[ActionPart, ...]:
    """Return one ActionPart per key of the action space, in its order; a single one if the space is no Dict.

    action: the policy's raw action, (*batch, *action), in the space of the distribution. drawn: report a Gaussian
    action as it was drawn, not as the environment received it, clipped to its Box.
    """
    return tuple(_action_part(*part, drawn) for part in _parts(head, distribution, action))


def _parts(
    head: Head, distribution: Distribution, action: Tensor
) -> Iterator[tuple[str, LeafHead, Distribution, Tensor]]:
    """Yield (key, head, distribution, raw action) for each key."""
    if not isinstance(head, JointHead):
        yield "", head, distribution, action
        return
    assert isinstance(distribution, Joint)
    yield from zip(head.keys, head.parts, distribution.parts, split(action, head.columns), strict=True)


def _action_part(key: str, head: LeafHead, distribution: Distribution, action: Tensor, drawn: bool) -> ActionPart:
    batch = action.dim() - len(head.action_shape)
    taken = head.to_env(action).reshape(*action.shape[:batch], -1)  # (*batch, k)
    if isinstance(distribution, Categorical | MultiCategorical):
        chances = distribution.probabilities
        chances = chances.unsqueeze(-2) if isinstance(distribution, Categorical) else chances  # (*batch, k, n)
        return ActionPart(_array(taken), _array(chances), _first(head), head.mask_layout, key=key)
    mean, std = _moments(distribution)
    box, offset, factor = _units(head)
    if drawn and isinstance(head, GaussianHead):
        taken = offset + factor * action
    low, high = _array(box.low), _array(box.high)
    return ActionPart(
        _array(taken), mean=_array(offset + factor * mean), std=_array(factor * std), low=low, high=high, key=key
    )


def _first(head: LeafHead) -> list[int]:
    """Return the environment's value of each component's first choice."""
    if isinstance(head, CategoricalHead):
        return [head.start]
    return head.start.tolist() if isinstance(head, MultiCategoricalHead) else [0] * len(head.mask_layout)


def _moments(distribution: Distribution) -> tuple[Tensor, Tensor]:
    """Return mean and std of a continuous action, (*batch, A) each; for a squashed one after the tanh, in [-1, 1]."""
    if isinstance(distribution, SquashedGaussian):
        return _squashed(distribution.mean, distribution.std)
    assert isinstance(distribution, DiagonalGaussian | Beta)
    return distribution.mean, distribution.std.expand_as(distribution.mean)


def _squashed(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and std of tanh(z), z normal, by the trapezoidal rule over its density; there is no closed form."""
    t = torch.linspace(-NODES_REACH, NODES_REACH, NODES, dtype=torch.float64, device=mean.device)
    weights = (-0.5 * t.square()).softmax(0)  # (nodes,)
    squashed = (mean.double().unsqueeze(-1) + std.double().unsqueeze(-1) * t).tanh()  # (*batch, A, nodes)
    center = (squashed * weights).sum(-1)
    spread = ((squashed - center.unsqueeze(-1)).square() * weights).sum(-1).sqrt()
    return center.to(mean.dtype), spread.to(mean.dtype)


def _units(head: LeafHead) -> tuple[BoxRange, Tensor, Tensor]:
    """Return the Box, and the offset and factor (A,) that convert the distribution's moments to its units."""
    assert isinstance(head, GaussianHead | SquashedHead | BetaHead)
    low, high = head.box.low, head.box.high
    if isinstance(head, BetaHead):  # [0, 1] maps to the Box
        return head.box, low, high - low
    if isinstance(head, GaussianHead) and not head.rescale:
        return head.box, torch.zeros_like(low), torch.ones_like(low)
    return head.box, low + (high - low) / 2, (high - low) / 2  # [-1, 1] maps to the Box


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy().copy()
