"""Private names of torch, looked up at each use. If a version of torch lacks one, the slower public way is used."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch

LOG = logging.getLogger("ppo_lab")
Kernel = Callable[..., object]
# the functions that torch's fused optimizers call
KERNELS = {torch.optim.Adam: "_fused_adam_", torch.optim.AdamW: "_fused_adamw_"}
PARAMETER, GRADIENT, RATE, DECAY, BETA1, BETA2 = 2.0, 0.5, 0.1, 0.5, 0.9, 0.99  # of the trial step in `_works`


def holds(owner: object, *names: str) -> bool:
    """Return whether one of these attributes is not empty (such as hooks); True if `owner` lacks the attribute."""
    return any(getattr(owner, name, True) for name in names)


def adam_kernel(kind: type) -> Kernel | None:
    """Return the fused kernel of Adam or AdamW; None for other optimizers, or if none works as expected."""
    name = KERNELS.get(kind)
    kernel = None if name is None else getattr(torch, name, None)
    return kernel if kernel is not None and _works(kind, kernel) else None


@cache  # once per kernel: reading the result of a step takes longer than the step
def _works(kind: type, kernel: Kernel) -> bool:
    """Return whether the kernel accepts our arguments and takes a correct first step, tried on one number.

    Logs a warning if not.
    """
    numbers = torch.tensor([PARAMETER, GRADIENT, 0.0, 0.0, 1.0], dtype=torch.float32, device="cpu")
    value, gradient, mean, square, steps = ([number.clone()] for number in numbers.split(1))
    try:
        kernel(
            value, gradient, mean, square, [], [steps[0][0]], lr=RATE, beta1=BETA1, beta2=BETA2, weight_decay=DECAY,
            eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip
        found = torch.cat([*value, *mean, *square, *steps]).tolist()
    except Exception as error:  # another version may raise anything for these arguments
        found = [str(error)]
    kept, slope = PARAMETER, GRADIENT + DECAY * PARAMETER
    if kind is torch.optim.AdamW:
        kept, slope = PARAMETER * (1 - RATE * DECAY), GRADIENT
    expected = [kept - RATE, (1 - BETA1) * slope, (1 - BETA2) * slope**2, 1.0]  # the first step has length RATE
    if len(found) == len(expected) and all(map(partial(math.isclose, rel_tol=1e-5), found, expected)):
        return True
    LOG.warning(
        "torch %s: the fused Adam kernel does not work as expected: %s; optimizer.step() is used",
        torch.__version__,
        found,
    )
    return False


def standard_gamma(shapes: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Draw G ~ Gamma(shape, 1) for each shape, (*shapes). (torch.distributions.Gamma takes no generator.)"""
    draw = getattr(torch, "_standard_gamma", None)
    if draw is not None:
        try:
            drawn: torch.Tensor = draw(shapes, generator=generator)
            return drawn
        except TypeError:
            pass
    seed = torch.randint(2**62, (), generator=generator, device=shapes.device)
    with torch.random.fork_rng([shapes.device] if shapes.device.type == "cuda" else []):
        torch.manual_seed(int(seed))
        return torch.distributions.Gamma(shapes, torch.ones_like(shapes)).sample()


def operation(name: str, overload: str) -> Any:
    """Return an ATen operation that has no public function; None if this version of torch does not have it."""
    return getattr(getattr(torch.ops.aten, name, None), overload, None)
