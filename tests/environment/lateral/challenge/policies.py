"""Policies for LateralControl that nobody has trained."""

from __future__ import annotations

import gymnasium
import numpy as np
import torch

from environment.lateral import driver
from ppo_lab.config import ModelConfig
from ppo_lab.evaluation.policy import Policy
from ppo_lab.models.actor_critic import ActorCritic

ACTION_SPACE = gymnasium.spaces.Box(-1, 1, (1,), np.float32)


def make_policy(observation="compact", louder=1.0, action_space=ACTION_SPACE, **settings):
    """An untrained policy; louder: the weights of its head times this, so that it steers harder."""
    torch.manual_seed(3)
    space = gymnasium.spaces.Box(-5, 5, (driver.SIZES[observation],), np.float32)
    model = ActorCritic(ModelConfig(**settings), space, action_space)
    if model.normalizes:
        model.features.refresh(torch.randn(1000, *space.shape) * torch.rand(space.shape) * 3 + torch.rand(space.shape))
    with torch.no_grad():
        for layer in model.actor_head.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight *= louder
    return Policy(model)
