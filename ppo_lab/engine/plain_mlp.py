"""Checks whether a model is a plain MLP that can be computed by hand on a CPU, and finds its layers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppo_lab.envs.contract import Obs
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.models.distributions import CategoricalHead, GaussianHead
from ppo_lab.models.networks.mlp import MLP
from ppo_lab.models.networks.normalization import ObsNormalizer
from ppo_lab.models.networks.observation import LeafInput
from ppo_lab.models.networks.value_head import ValueHead
from ppo_lab.models.private_names import holds


class PlainMLP(NamedTuple):
    """The layers of a plain MLP: linear layers on a vector, tanh or ReLU after each, and a Discrete or Box head."""

    actor: list[nn.Linear]  # hidden layers
    critic: list[nn.Linear]
    actor_head: nn.Linear  # of logits or means
    tanh: bool  # False: ReLU
    log_std: nn.Parameter | None  # (A,) of a Box's actions; None: Discrete
    log_std_bounds: tuple[float, float]
    normalizer: ObsNormalizer | None


def plain_mlp(model: ActorCritic, obs: Obs) -> PlainMLP | str:
    """Return the layers of `model`, for observations like `obs` (N, F), all in float32 on a CPU.

    For another model, return the reason: a memory, masks, several keys, another precision, state-dependent noise, a
    frozen parameter, a custom layer or a hook.
    """
    if type(model) is not ActorCritic:
        return f"{type(model).__name__} is a custom model"
    if not isinstance(obs, Tensor) or not isinstance(model.features, LeafInput):
        return "observations with several keys"
    if model.recurrent:
        return f"recurrent: {type(model.actor_core).__name__}"
    actor, critic, head = model.actor_body, model.critic_body, model.actor_head
    if type(actor) is not MLP or type(critic) is not MLP or type(model.critic_head) is not ValueHead:
        return f"a body that is not an MLP ({type(actor).__name__})"
    if actor.activation not in (torch.tanh, F.relu):
        return "an activation other than tanh and relu"
    if any(type(layer) is not nn.Linear for body in (actor, critic) for layer in body.layers):
        return "layers between the linear ones"
    if not model.features.unchanged or model.masked:
        return "observations that are encoded first" if not model.masked else "action masks"
    if model.autocast_dtype is not None:
        return "a precision other than float32"
    log_std, bounds = None, (0.0, 0.0)
    if isinstance(head, CategoricalHead):
        last = head.logits
    elif isinstance(head, GaussianHead) and isinstance(head.log_std, nn.Parameter) and not head.noise_size:
        last, log_std, bounds = head.mean, head.log_std, head.log_std_bounds
    else:
        return f"actions from a {type(head).__name__}"
    if type(last) is not nn.Linear or any(map(has_hooks, model.modules())):
        return "hooks on the model"
    for each in (obs, *model.parameters()):
        if each.device.type != "cpu" or each.dtype != torch.float32:
            return f"{each.dtype} on {each.device.type}".removeprefix("torch.")
        if each is not obs and _is_watched(each):
            return "frozen parameters or hooks on them"
    hidden, values = ([layer for layer in body.layers if isinstance(layer, nn.Linear)] for body in (actor, critic))
    return PlainMLP(hidden, values, last, actor.activation is torch.tanh, log_std, bounds, model.features.normalizer)


def has_hooks(module: nn.Module) -> bool:
    """Return whether hooks are registered on the module or on its gradient."""
    return holds(module, "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _is_watched(parameter: Tensor) -> bool:
    """Return whether a parameter is frozen or has hooks on its gradient."""
    return holds(parameter, "_backward_hooks", "_post_accumulate_grad_hooks") or not parameter.requires_grad
