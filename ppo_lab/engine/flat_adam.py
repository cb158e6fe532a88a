"""A gradient step on flat parameters, with clipping and Adam as one operation each."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ppo_lab.engine.flat_parameters import FlatParameters
from ppo_lab.models.private_names import adam_kernel, holds


def flat_step(optimizer: torch.optim.Optimizer, flat: FlatParameters, max_grad_norm: float) -> Tensor:
    """Take the step of `ppo.optimizer.gradient_step` with the same result; return the gradient norm () before clipping.

    With a norm that is not finite, no step is taken.
    """
    norm = torch.from_numpy(_clip(flat, max_grad_norm))
    if math.isfinite(norm.item()) and not adam_step(optimizer, flat):
        optimizer.step()
    return norm


@torch.inference_mode()
def _clip(flat: FlatParameters, max_grad_norm: float) -> np.ndarray:
    """Clip the gradients; return their norm (). NumPy reads a single number faster than torch."""
    norm: np.ndarray = torch.linalg.vector_norm(flat.grad).numpy()
    factor = 1 / (norm + np.float32(1e-6)) * np.float32(max_grad_norm)  # the order of operations in clip_grad_norm_
    if factor < 1.0:
        flat.grad.mul_(float(factor))
    return norm


@torch.inference_mode()
def adam_step(optimizer: torch.optim.Optimizer, flat: FlatParameters) -> bool:
    """Take the step of `optimizer.step()`, with one kernel call if all groups have the same settings.

    Return False, without a step, where `optimizer.step()` has to take it: another optimizer than Adam, hooks, other
    parameters, or a torch without that kernel. For a small network this is several times faster, because torch checks
    every parameter again before it calls the kernel.
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
