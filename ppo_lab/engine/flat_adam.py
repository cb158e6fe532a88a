"""One guarded gradient step on flat parameters: clipping and Adam as one operation each."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ppo_lab.engine.flat_parameters import FlatParameters
from ppo_lab.models.private_names import adam_kernel, holds


def flat_step(optimizer: torch.optim.Optimizer, flat: FlatParameters, max_grad_norm: float) -> Tensor:
    """Take the step of `ppo.optimizer.gradient_step`, with the same numbers; return the norm () before clipping."""
    norm = torch.from_numpy(_clip(flat, max_grad_norm))
    if math.isfinite(norm.item()) and not adam_step(optimizer, flat):
        optimizer.step()
    return norm


@torch.inference_mode()
def _clip(flat: FlatParameters, max_grad_norm: float) -> np.ndarray:
    """Clip the gradients; return their norm (). Reading one number in memory costs less than an operation on it."""
    norm: np.ndarray = torch.linalg.vector_norm(flat.grad).numpy()
    factor = 1 / (norm + np.float32(1e-6)) * np.float32(max_grad_norm)  # in the order of clip_grad_norm_
    if factor < 1.0:
        flat.grad.mul_(float(factor))
    return norm


@torch.inference_mode()
def adam_step(optimizer: torch.optim.Optimizer, flat: FlatParameters) -> bool:
    """Do as `optimizer.step()`, in one kernel call where all groups have the same settings.

    False where that has to do it: no Adam, hooks, other parameters, a torch without that kernel. Torch looks at every
    parameter of a small network again and again before it calls it: many times the time.
    """
    hooks = holds(optimizer, "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    kernel = None if hooks else adam_kernel(type(optimizer))
    moments = None if kernel is None else flat.moments(optimizer)
    if kernel is None or moments is None:
        return False
    groups = optimizer.param_groups
    columns = [[flat.value], [flat.grad], [moments.mean], [moments.square], [moments.steps[0]]]
    settings = [(group["lr"], group["betas"], group["weight_decay"], group["eps"]) for group in groups]
    parts = [(settings[0], columns)]
    if not moments.alike or settings.count(settings[0]) < len(groups):
        parts = [(each, moments.columns(group["params"])) for each, group in zip(settings, groups, strict=True)]
    moments.steps.add_(1)
    for (rate, (beta1, beta2), decay, eps), (values, gradients, means, squares, steps) in parts:
        kernel(
            values, gradients, means, squares, [], steps, lr=rate, beta1=beta1, beta2=beta2,
            weight_decay=decay, eps=eps, amsgrad=False, maximize=False,
        )  # fmt: skip
    return True
