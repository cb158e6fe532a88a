"""The optimizer of actor and critic, their learning rates, and a gradient step that skips non-finite gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from ppo_lab.config import PPOConfig
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.schedules import warmup_factor


def make_optimizer(model: ActorCritic, ppo: PPOConfig) -> torch.optim.Optimizer:
    """Create Adam, AdamW or SGD with parameter groups for actor and critic.

    Their learning rates are 0 here and set before every update. Weight decay applies to weight matrices only: biases,
    log std and other vectors are in groups of their own, without it.
    """
    groups = []
    spared = _spared(model)
    for role, parameters in zip(("actor", "critic"), model.parameter_groups(), strict=True):
        if not ppo.weight_decay:
            groups.append({"params": parameters, "lr": 0.0, "role": role, "weight_decay": 0.0})
            continue
        for spare, decay in ((False, ppo.weight_decay), (True, 0.0)):
            some = [parameter for parameter in parameters if (id(parameter) in spared) == spare]
            groups.append({"params": some, "lr": 0.0, "role": role, "weight_decay": decay})
    # fused: one kernel for all parameters, and `found_inf` can skip a step on the device, without a copy to the host
    if ppo.optimizer == "sgd":
        return torch.optim.SGD(groups, fused=True)
    kind = torch.optim.AdamW if ppo.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, eps=ppo.adam_eps, fused=True)


def _spared(model: ActorCritic) -> set[int]:
    """Return the ids of the parameters without weight decay: vectors, and gSDE's log std, which is a matrix."""
    return {id(p) for name, p in model.named_parameters() if p.dim() < 2 or "log_std" in name}


def load_moments(optimizer: torch.optim.Optimizer, model: ActorCritic, saved: Mapping[str, Any]) -> None:
    """Load the moments and learning rates from the `state_dict` of an optimizer of the same model.

    The settings of `optimizer` itself stay. The other optimizer may differ, because a fork can change it: Adam and
    AdamW have the same moments, SGD has none. Moments are matched by parameter, since weight decay changes the number
    of groups. Raises ValueError if the number of parameters differs.
    """
    roles, spared = model.parameter_groups(), _spared(model)
    there = [parameter for role in roles for parameter in role]
    if len(saved["param_groups"]) > 2:  # the saved optimizer had weight decay, so four groups
        there = [p for role in roles for spare in (False, True) for p in role if (id(p) in spared) == spare]
    if len(there) != sum(len(group["params"]) for group in saved["param_groups"]):
        raise ValueError("the optimizer has a different number of parameters")
    here = {id(p): i for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
    own = optimizer.state_dict()
    if not isinstance(optimizer, torch.optim.SGD):
        own["state"] = {here[id(there[int(i)])]: moments for i, moments in saved["state"].items()}
    rates = {group["role"]: group["lr"] for group in saved["param_groups"]}
    for group in own["param_groups"]:
        group["lr"] = rates[group["role"]]
    optimizer.load_state_dict(own)


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the current learning rates of "actor" and "critic"."""
    return {group["role"]: group["lr"] for group in optimizer.param_groups}


def set_learning_rates(
    optimizer: torch.optim.Optimizer, ppo: PPOConfig, learning_rate: float, global_step: int, rollout_steps: int
) -> None:
    """Set the learning rates of the update that starts at `global_step`.

    learning_rate: the actor's rate after its schedule, before warm-up. The critic's rate changes in proportion to it.
    The length of the warm-up is a fraction of the configured total: a run that is extended does not warm up again.
    """
    warmup = warmup_factor(ppo.learning_rate_warmup * ppo.total_timesteps, global_step, rollout_steps)
    critic = learning_rate
    if ppo.critic_learning_rate is not None:
        share = learning_rate / ppo.learning_rate if ppo.learning_rate else 1.0
        critic = ppo.critic_learning_rate * share
    for group in optimizer.param_groups:
        group["lr"] = warmup * (learning_rate if group["role"] == "actor" else critic)


def gradient_step(
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float,
    scaler: GradScaler | None = None,
) -> Tensor:
    """Clip the global norm of the gradients and take one optimizer step. Return the norm before clipping, ().

    The step is skipped if the norm is NaN or infinite, because clipping would spread one NaN to every parameter. The
    caller can see that from the norm. On a GPU the fused optimizer reads `found_inf` there, so the host does not wait.

    scaler: for float16, where the loss is multiplied by a scale factor so that small gradients do not become 0. The
    gradients are divided by it here. After a skipped step the scaler halves its factor.
    """
    scaled = scaler is not None and scaler.is_enabled()
    if scaler is not None and scaled:
        scaler.unscale_(optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    if norm.device.type != "cpu" or scaled:
        setattr(optimizer, "found_inf", (~norm.isfinite()).float())  # noqa: B010  # fused ones read it; not in stubs
    elif not norm.isfinite():
        return norm
    if scaler is not None and scaled:
        scaler.step(optimizer)
        scaler.update()
    else:
        optimizer.step()
    return norm


def clear_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Set all gradients to None, as `optimizer.zero_grad()` does, without its profiler record (10 microseconds)."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
