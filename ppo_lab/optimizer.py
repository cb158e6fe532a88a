"""Adam for actor and critic, their learning rates, and one guarded gradient step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ppo_lab.actor_critic import ActorCritic
from ppo_lab.config import PPOConfig
from ppo_lab.schedules import warmup_factor


def make_optimizer(model: ActorCritic, adam_eps: float) -> torch.optim.Adam:
    """Adam with a group each for actor and critic, whose learning rates are set before every update."""
    actor, critic = model.parameter_groups()
    groups = [{"params": actor, "lr": 0.0}, {"params": critic, "lr": 0.0}]
    # fused: one kernel for all parameters, and a step that `found_inf` can call off without a look from the host
    return torch.optim.Adam(groups, eps=adam_eps, fused=True)


def set_learning_rates(
    optimizer: torch.optim.Adam, ppo: PPOConfig, learning_rate: float, global_step: int, rollout_steps: int
) -> None:
    """Set the rates of an update that begins at `global_step`.

    learning_rate: of the actor, as the schedule says, before warm-up. The critic's moves in proportion to it.
    Warm-up is a share of the configured total: a run that is made longer does not warm up again.
    """
    warmup = warmup_factor(ppo.learning_rate_warmup * ppo.total_timesteps, global_step, rollout_steps)
    critic = learning_rate
    if ppo.critic_learning_rate is not None:
        share = learning_rate / ppo.learning_rate if ppo.learning_rate else 1.0
        critic = ppo.critic_learning_rate * share
    for group, rate in zip(optimizer.param_groups, (learning_rate, critic), strict=True):
        group["lr"] = rate * warmup


def gradient_step(optimizer: torch.optim.Adam, total: Tensor, max_grad_norm: float) -> Tensor:
    """One step down the gradient of `total`, its global norm clipped; returns the norm before clipping, ().

    A norm that is not finite calls the step off, on the device: clipping would spread one NaN to every parameter.
    Who wants to know looks at the norm.
    """
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    setattr(optimizer, "found_inf", (~norm.isfinite()).float())  # noqa: B010  # read by fused Adam; not in its stubs
    optimizer.step()
    return norm
