"""run.compile: the loss of a minibatch and its gradient, compiled into one program by torch.compile."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import sys
import sysconfig
import types
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from ppo_lab.config import PPOConfig
from ppo_lab.errors import ConfigError
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.batches import Batch
from ppo_lab.ppo.learner import LossSettings, minibatch_loss
from ppo_lab.ppo.losses import Loss

LOG = logging.getLogger("ppo_lab")
ENOUGH = 4  # minibatches whose median shows the time of one without compiling
COMPILERS = {"darwin": "clang++", "win32": "cl"}  # elsewhere g++; the environment variable CXX overrides it
_numbers = itertools.count(1)


class CompiledLoss:
    """`minibatch_loss`, compiled at its first call.

    The model is an argument and is not changed: its weights keep their names, and copies of it are not compiled.
    """

    def __init__(self, any_size: bool) -> None:
        """Prepare. any_size: support minibatches of varying size; a program for one size is slightly faster."""
        self._any_size = any_size
        # Torch caches compiled code, and which sizes vary, by code object and name. So each trainer gets its own name:
        # otherwise the ninth network of a process is not compiled, and images of a second size are treated as varying.
        code = minibatch_loss.__code__.replace(co_name=f"minibatch_loss_{next(_numbers)}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # importing the compiler uses deprecated parts of torch
            # compile in this process: a pool of compile workers saves no time and lives until the end
            self._compiled = torch.compile(
                types.FunctionType(code, minibatch_loss.__globals__), options={"compile_threads": 1}
            )
        self._seconds: list[float] = []
        self._told = False

    def __call__(self, model: ActorCritic, batch: Batch, ppo: PPOConfig) -> Loss:
        """Return the PPO loss of a batch."""
        device = batch.advantage.device  # each new value of a number would be compiled again

        def coefficient(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.full((), value, dtype=dtype, device=device)

        settings = LossSettings(*(getattr(ppo, name) for name in LossSettings._fields))._replace(
            clip_coef=coefficient(ppo.clip_coef, torch.float64),  # 1 - clip_coef is rounded once, as for a float
            vf_coef=coefficient(ppo.vf_coef),
            ent_coef=coefficient(ppo.ent_coef) if ppo.ent_coef else 0.0,
        )
        if self._any_size:  # two programs would round differently; a resumed run might start with the other
            batch = batch.map(_of_any_size)
        found: Loss = self._compiled(model, batch, settings)
        return found

    def tell_warm_up(self, seconds: Sequence[float]) -> None:
        """Collect the seconds of an update's minibatches, and log once how long compiling took."""
        if self._told:
            return
        self._seconds += seconds
        if len(self._seconds) >= ENOUGH:
            self._told = True
            usual = median(self._seconds)
            warm_up = sum(self._seconds) - usual * len(self._seconds)
            LOG.warning("run.compile: compiling took %.1f s; a minibatch takes %.2g ms now", warm_up, 1000.0 * usual)


def _of_any_size(column: Tensor) -> Tensor:
    """Mark a column (1, B, ...) as one whose B may change from call to call, and return it."""
    mark = getattr(getattr(torch, "_dynamo", None), "maybe_mark_dynamic", None)
    if mark is not None:  # without it torch compiles once more at the second size
        mark(column, 1)
    return column


def check_compiler() -> None:
    """Raise ConfigError with what to install if the C++ compiler or the Python headers are missing."""
    name = os.environ.get("CXX") or COMPILERS.get(sys.platform, "g++")
    missing = None if shutil.which(name.split()[0]) else f"the C++ compiler {name}"
    if missing is None and not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        missing = "Python.h, the headers of Python"
    if missing is not None:
        how = {"darwin": "xcode-select --install", "win32": "the Visual Studio Build Tools with C++"}
        install = how.get(sys.platform, "apt install g++ python3-dev (dnf: gcc-c++ python3-devel)")
        raise ConfigError(f"run.compile: torch.compile needs {missing}: {install}; or set run.compile to false")
