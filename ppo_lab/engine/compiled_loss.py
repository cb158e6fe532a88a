"""run.compile: the loss of a minibatch and its gradient as one program that torch makes of them (torch.compile)."""

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
ENOUGH = 4  # minibatches that tell what one takes when nothing is compiled
COMPILERS = {"darwin": "clang++", "win32": "cl"}  # elsewhere g++; CXX in the environment names another
_numbers = itertools.count(1)


class CompiledLoss:
    """`minibatch_loss`, compiled at its first call.

    The model is an argument and stays as it is: its weights have the same names, copies of it are not compiled.
    """

    def __init__(self, any_size: bool) -> None:
        """Prepare. any_size: for minibatches of varying size; a program for one size is somewhat faster."""
        self._any_size = any_size
        # Torch keeps what it compiled, and what it knows to vary, by code object and name. Each trainer has its own:
        # otherwise the ninth network of a process is not compiled, and images of a second size count as varying ones.
        code = minibatch_loss.__code__.replace(co_name=f"minibatch_loss_{next(_numbers)}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the compiler's import uses what torch deprecates
            # in this process: a pool of compiling ones saves no time and stays until the end
            self._compiled = torch.compile(
                types.FunctionType(code, minibatch_loss.__globals__), options={"compile_threads": 1}
            )
        self._seconds: list[float] = []
        self._told = False

    def __call__(self, model: ActorCritic, batch: Batch, ppo: PPOConfig) -> Loss:
        """Return the PPO loss of a batch."""
        device = batch.advantage.device  # as numbers, each new value would be compiled

        def coefficient(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.full((), value, dtype=dtype, device=device)

        settings = LossSettings(*(getattr(ppo, name) for name in LossSettings._fields))._replace(
            clip_coef=coefficient(ppo.clip_coef, torch.float64),  # 1 - it is rounded once, as a float's is
            vf_coef=coefficient(ppo.vf_coef),
            ent_coef=coefficient(ppo.ent_coef) if ppo.ent_coef else 0.0,
        )
        if self._any_size:  # else two programs would round differently, and a resumed run begin with the other one
            batch = batch.map(_of_any_size)
        found: Loss = self._compiled(model, batch, settings)
        return found

    def tell_warm_up(self, seconds: Sequence[float]) -> None:
        """Take in what the minibatches of an update took, and say once what compiling cost."""
        if self._told:
            return
        self._seconds += seconds
        if len(self._seconds) >= ENOUGH:
            self._told = True
            usual = median(self._seconds)
            warm_up = sum(self._seconds) - usual * len(self._seconds)
            LOG.warning("run.compile: compiling took %.1f s; a minibatch takes %.2g ms now", warm_up, 1000.0 * usual)


def _of_any_size(column: Tensor) -> Tensor:
    """Mark a column (1, B, ...) whose B may change from call to call."""
    mark = getattr(getattr(torch, "_dynamo", None), "maybe_mark_dynamic", None)
    if mark is not None:  # without it torch finds out at the second size, and compiles once more
        mark(column, 1)
    return column


def check_compiler() -> None:
    """Raise ConfigError with what to install if there is no C++ compiler, or no Python headers for it."""
    name = os.environ.get("CXX") or COMPILERS.get(sys.platform, "g++")
    missing = None if shutil.which(name.split()[0]) else f"the C++ compiler {name}"
    if missing is None and not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        missing = "Python.h, the headers of Python"
    if missing is not None:
        how = {"darwin": "xcode-select --install", "win32": "the Visual Studio Build Tools with C++"}
        install = how.get(sys.platform, "apt install g++ python3-dev (dnf: gcc-c++ python3-devel)")
        raise ConfigError(f"run.compile: torch.compile needs {missing}: {install}; or set run.compile to false")
