"""Estimates the memory that training needs on its device, before training allocates it."""

from __future__ import annotations

import copy
import logging
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppo_lab.config import Config, PPOConfig
from ppo_lab.engine.choose import ChosenEngine
from ppo_lab.engine.process import give_back_memory
from ppo_lab.envs.contract import Obs
from ppo_lab.errors import ConfigError
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.batches import Batch, whole
from ppo_lab.ppo.rollout import Rollout, estimate_values, rows_at_once
from ppo_lab.trees import apply, at, leaves

try:
    from torch.utils._python_dispatch import TorchDispatchMode as Mode
except ImportError:  # a private module; without it the plan leaves out what the passes need
    Mode = None  # type: ignore[assignment, misc]  # checked before use

LOG = logging.getLogger("ppo_lab")
MOMENTS = {"adam": 2, "adamw": 2, "sgd": 0}  # numbers that the optimizer keeps for each weight
PROBE = (32, 64)  # environments in two runs that show how memory grows; with fewer, the weights dominate


class MemoryPlan(NamedTuple):
    """The bytes that training needs on its device, without those of the environments."""

    rollout: int  # the tensors of a Rollout; exact
    minibatches: int  # advantages and shuffled copies: the last pass keeps its copy until the next one is made
    learner: int  # weights, gradients and the moments of the optimizer
    values: int  # the largest pass without gradients: acting, values of the rollout, observation statistics
    gradient: int  # intermediate results of one minibatch, or of one of its `accumulate` parts
    device: str
    free: int | None  # bytes that are free on the device; None: unknown
    rollback: int = 0  # copy of weights and moments from the start of a slow update (`training.rollback`)

    @property
    def total(self) -> int:
        """The most that is held at one time."""
        return self.rollout + self.minibatches + self.learner + self.rollback + max(self.values, self.gradient)

    def __str__(self) -> str:
        parts = ("rollout", "minibatches", "learner", "rollback", "values", "gradient")
        told = ", ".join(f"{part} {as_text(getattr(self, part))}" for part in parts)
        return f"{as_text(self.total)} of memory on {self.device}: {told}"

    def check(self) -> None:
        """Raise ConfigError if the total exceeds the free memory; the message says which settings to change."""
        if self.free is None or self.total <= self.free:
            return
        advice = "lower env.num_envs or ppo.num_steps"
        if self.gradient > max(self.values, self.rollout):
            advice += ", or raise ppo.num_minibatches or ppo.accumulate"
        if self.learner + self.rollback > self.total / 2:
            advice = "lower model.hidden_sizes, or other settings that make the network large"
        raise ConfigError(f"training needs {self}; {as_text(self.free)} are free: {advice}")


def as_text(size: float) -> str:
    """Format bytes in a readable unit: "1.5 GB"."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def plan_memory(config: Config, engine: ChosenEngine, model: ActorCritic, obs: Obs) -> MemoryPlan:
    """Plan the memory of training on environments with observations like `obs` (N, *obs), and log it.

    The size of the rollout is computed from shapes. Passes through the network are measured on a copy of the
    network with a few rows, and extrapolated. Raises ConfigError if the total exceeds the free memory of the device.
    """
    ppo, N = config.ppo, len(leaves(obs)[0])
    first = apply(lambda rows: rows[:1].to("meta"), obs)
    one = Rollout.empty(ppo.num_steps, 1, first, model, ppo.chunk_length)  # meta tensors, without memory
    weights, buffers = (sum(p.nbytes for p in held) for held in (model.parameters(), model.buffers()))
    device = leaves(obs)[0].device
    sizes = _passes(config.ppo, engine, model, obs, N)
    plan = MemoryPlan(
        rollout=N * nbytes(one),
        minibatches=sizes["minibatches"],
        learner=weights * (2 + MOMENTS[ppo.optimizer]) + buffers,
        rollback=weights * (1 + MOMENTS[ppo.optimizer]) + buffers + 2 * torch.Generator(device).get_state().nbytes,
        values=max(sizes["acting"], sizes["values"], sizes["statistics"]),
        gradient=sizes["gradient"],
        device=str(device),
        free=free_memory(device),
    )
    LOG.info("%s", plan)
    plan.check()
    return plan


def nbytes(holder: object) -> int:
    """Return the bytes of all tensors in a Rollout or a Batch."""
    held = vars(holder) if hasattr(holder, "__dict__") else holder._asdict()  # type: ignore[attr-defined]  # NamedTuple
    trees = [value for value in held.values() if isinstance(value, Tensor | dict)]
    return sum(tensor.nbytes for tree in trees for tensor in leaves(tree))


def _passes(ppo: PPOConfig, engine: ChosenEngine, model: ActorCritic, obs: Obs, N: int) -> dict[str, int]:
    """Return the bytes of each part that grows with the rows of a rollout, except the rollout itself."""
    small, large = (_probe(ppo, engine, model, obs, rows) for rows in PROBE)
    weights = sum(p.nbytes for p in model.parameters())  # their gradients count as part of the learner
    each = {name: max(0.0, (large[name] - small[name]) / (PROBE[1] - PROBE[0])) for name in small}
    T, L = ppo.num_steps, min(ppo.chunk_length, ppo.num_steps) if model.recurrent else 1
    rows, chunks = T * N, N * -(-T // L)
    batch = -(-chunks // ppo.num_minibatches)  # chunks (or rows) of a minibatch
    copied = batch if model.recurrent else rows
    copies = 1 if ppo.update_epochs == 1 and (ppo.num_minibatches == 1 or not model.recurrent) else 2
    kept = 4 * 4 * rows + 2 * 8 * chunks  # rewards, advantages (twice), returns; 2 permutations
    if not model.recurrent:
        kept += 3 * 8 * rows  # the advantages of a pass are normalised at once, in float64
    kept += (1 + copies) * 4 * rows * engine.learning.normalized_inputs(model, obs)
    counts = {
        "acting": rows if engine.acting.in_numpy(model, obs) else N,  # NumPy: log_prob in one batch at the end
        # one chunk at a time; or a block of all rows, of which the probe has 2 per environment
        "values": N if model.recurrent else min(N * (T + 1), rows_at_once(obs) * 9 / 8) / 2,
        "statistics": rows / L,
        "gradient": engine.learning.rows_at_once(model, obs, -(-batch // ppo.accumulate)),
        "minibatches": copies * copied,
    }
    sizes = {name: int(small[name] + each[name] * (count - PROBE[0])) for name, count in counts.items()}
    return sizes | {"minibatches": sizes["minibatches"] + kept, "gradient": sizes["gradient"] - weights}


def _probe(ppo: PPOConfig, engine: ChosenEngine, model: ActorCritic, obs: Obs, rows: int) -> dict[str, int]:
    """Measure the peak bytes of each pass for a rollout of `rows` environments and one chunk.

    The state of the run does not change.
    """
    device = leaves(obs)[0].device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        model = copy.deepcopy(model)
        rollout, batch = pretend(ppo, model, obs, rows)
        memory = model.initial_memory(rows)

        @torch.no_grad()
        def act() -> Any:
            return model.step(at(rollout.obs, 0), memory, rollout.starts[0])

        return {
            "acting": peak_bytes(act),
            "values": peak_bytes(lambda: estimate_values(model, rollout, memory)),
            "gradient": peak_bytes(lambda: engine.probe(model, batch, ppo)()),
            "statistics": peak_bytes(lambda: model.refresh_statistics(rollout.obs, rollout.valid)),
            "minibatches": nbytes(batch),
        }


def pretend(ppo: PPOConfig, model: ActorCritic, obs: Obs, rows: int) -> tuple[Rollout, Batch]:
    """Return a rollout of `rows` environments and one chunk, filled with the first row of `obs`, and its batch."""
    seen = apply(lambda all_rows: all_rows[:1].expand(rows, *all_rows.shape[1:]), obs)
    L = min(ppo.chunk_length, ppo.num_steps) if model.recurrent else 1
    rollout = Rollout.empty(L, rows, seen, model, L)
    for target, source in zip(leaves(rollout.obs), leaves(seen), strict=True):
        target.copy_(source)  # to all rows
    rollout.valid.fill_(True)
    rollout.starts[0] = rollout.starts[L // 2] = True  # episodes start there, so sequences are cut
    return rollout, whole(rollout, rollout.value, rollout.value)


def peak_bytes(function: Callable[[], Any]) -> int:
    """Return the peak bytes of the tensors that function() creates; 0 if torch does not report them."""
    if Mode is None:
        return 0
    with _Watch() as watch:
        function()
    return watch.peak


class _Watch(Mode or object):  # type: ignore[misc]  # Mode may be None
    """Tracks each tensor that an operation creates, and when its memory is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        there = {tensor.untyped_storage().data_ptr() for tensor in _tensors((*args, *kwargs.values()))}
        for tensor in _tensors((result,)):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in there:  # otherwise a view of an argument, or changed in place
                there.add(storage.data_ptr())
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._given_back, storage.nbytes())
        return result

    def _given_back(self, size: int) -> None:
        self.live -= size


def _tensors(values: Any) -> list[Tensor]:
    """Return the tensors in a sequence, including those in nested sequences."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += _tensors(value)
    return found


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that this process can still allocate on the device; None if unknown."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # kept by torch for reuse
        return torch.cuda.mem_get_info(device)[0] + kept
    give_back_memory()
    known = [size for size in (_free_in_system(), _free_in_container()) if size is not None]
    return min(known, default=None)


def _free_in_system() -> int | None:
    """Return the bytes of MemAvailable on Linux, of all memory on other systems; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _free_in_container(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes left below the limit of this container (cgroup v2); None without a limit.

    Cached files do not count as used.
    """
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        facts = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return None if limit == "max" else int(limit) - used + int(facts["file"]) - int(facts["shmem"])
    except (OSError, ValueError, KeyError):
        return None
