"""Selection of the head for an action space, and the head for Dict spaces."""

from __future__ import annotations

from typing import final

import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

from ppo_lab.config import ModelConfig
from ppo_lab.errors import EnvError
from ppo_lab.models.distributions.box_heads import BOX_HEADS, BetaHead, GaussianHead, SquashedHead
from ppo_lab.models.distributions.contract import Noise, initial_noise
from ppo_lab.models.distributions.discrete_heads import BinaryHead, CategoricalHead, MultiCategoricalHead
from ppo_lab.models.distributions.joint import Columns, Joint, split

LeafHead = CategoricalHead | MultiCategoricalHead | BinaryHead | GaussianHead | SquashedHead | BetaHead
SUPPORTED = "Discrete, MultiDiscrete, MultiBinary, Box, and Dict of these"


@final
class JointHead(nn.Module):
    """Features -> Joint over a flat Dict space: one head per key, in the order of the space.

    Masks and gSDE noise of the components are concatenated in the same order; components without them have no columns.
    """

    def __init__(self, num_features: int, space: spaces.Dict, settings: ModelConfig) -> None:
        super().__init__()
        if not space.spaces:
            raise EnvError("action space Dict() has nothing to choose")
        self.keys = tuple(space.spaces)
        self.num_features = num_features
        # a list, as the names in a ModuleDict must not contain a dot
        self.heads = nn.ModuleList(_component(key, each, num_features, settings) for key, each in space.items())
        self.columns = [Columns(head.action_shape, head.action_dtype) for head in self.parts]
        whole = all(head.action_dtype == torch.int64 for head in self.parts)
        self.action_shape: tuple[int, ...] = (sum(each.width for each in self.columns),)
        self.action_dtype = torch.int64 if whole else torch.float32
        self.mask_layout: tuple[int, ...] = sum((head.mask_layout for head in self.parts), ())
        self.mask_size = sum(self.mask_layout)
        self.noise_size = sum(head.noise_size for head in self.parts)

    @property
    def parts(self) -> list[LeafHead]:
        """The components' heads."""
        return list(self.heads)  # type: ignore[arg-type]  # ModuleList does not know the type of its items

    def initial_noise(self, num_envs: int) -> dict[str, Tensor]:
        """Return gSDE's part of the memory for all components together, see `GaussianHead.initial_noise`."""
        return initial_noise(self, num_envs, self.num_features, self.noise_size) if self.noise_size else {}

    def forward(self, features: Tensor, mask: Tensor | None = None, noise: Noise | None = None) -> Joint:
        """Return a distribution over (*batch, sum of widths) from features (*batch, F)."""
        heads = self.parts
        masks: list[Tensor | None] = [None] * len(heads)
        noises: list[Noise | None] = [None] * len(heads)
        if mask is not None:
            masks = [*mask.split([head.mask_size for head in heads], dim=-1)]
        if noise is not None:  # views: noise that a component draws is written to the whole tensor
            noises = [(own, noise[1]) for own in noise[0].split([head.noise_size for head in heads], dim=-1)]
        parts = [
            head(features, masks[i] if head.mask_size else None, noises[i] if head.noise_size else None)
            for i, head in enumerate(heads)
        ]
        return Joint(parts, self.columns)

    def to_env(self, action: Tensor) -> dict[str, Tensor]:
        """Convert (*batch, sum of widths) to the environment's action, one tensor per key."""
        own = split(action, self.columns)
        return {key: head.to_env(part) for key, head, part in zip(self.keys, self.parts, own, strict=True)}


Head = LeafHead | JointHead


def make_head(space: Space, num_features: int, settings: ModelConfig) -> Head:
    """Make the head for a flat action space.

    All heads have: forward(features (*batch, F), mask (*batch, mask_size) bool or None, noise or None) ->
    Distribution; to_env(action) -> tensor, or dict for a Dict space; action_shape and action_dtype of the policy's
    action; mask_size and mask_layout (see `check_mask`; 0 and () where there is nothing to mask); noise_size and
    initial_noise(num_envs) (see `contract.Noise`).

    Raises EnvError for a space without a head, ConfigError for contradictory settings of a Box's distribution.
    """
    return (
        JointHead(num_features, space, settings)
        if isinstance(space, spaces.Dict)
        else _leaf(space, num_features, settings)
    )


def _leaf(space: Space, num_features: int, settings: ModelConfig) -> LeafHead:
    if isinstance(space, spaces.Discrete):
        return CategoricalHead(num_features, space)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategoricalHead(num_features, space)
    if isinstance(space, spaces.MultiBinary):
        return BinaryHead(num_features, space)
    if isinstance(space, spaces.Box):
        return BOX_HEADS[settings.distribution](num_features, space, settings)
    raise EnvError(f"action space {space} is not supported; supported: {SUPPORTED}")


def _component(key: str, space: Space, num_features: int, settings: ModelConfig) -> LeafHead:
    try:
        return _leaf(space, num_features, settings)
    except EnvError as error:
        raise EnvError(f"key {key!r} of the action space: {error}") from None
