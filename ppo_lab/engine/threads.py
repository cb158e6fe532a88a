"""Chooses the number of CPU threads of torch for run.threads: auto, by a short measurement.

On shared cores a second thread can make a small network ten times slower, so the number of cores is not enough to know.
"""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from ppo_lab.config import Config, PPOConfig
from ppo_lab.config.loading import override
from ppo_lab.engine.choose import ChosenEngine
from ppo_lab.engine.memory_plan import pretend
from ppo_lab.envs.contract import Obs
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.trees import at, leaves

LOG = logging.getLogger("ppo_lab")
CLEARLY = 0.8  # a larger count is taken if it needs at most this share of the time
LIMIT = 0.25  # seconds for comparisons; before and after them there are a few passes
ROUNDS = (3, 7)  # fewest and most rounds of a comparison; fewer prove nothing
PASS = 0.008  # seconds of a timed pass: rows are added until it takes longer than this


class ThreadChoice(NamedTuple):
    """The chosen number of threads, and the measured times."""

    threads: int
    seconds: dict[int, float]  # threads -> median time of an update's passes through the network

    def __str__(self) -> str:
        if not self.seconds:
            return f"run.threads: auto took {self.threads}: there is nothing to choose"
        one, *more = (f"{seconds:.2g} s with {count}" for count, seconds in self.seconds.items())
        times = ", ".join([f"{one} thread", *more])
        return f"run.threads: auto took {self.threads}: an update's passes through the network take {times}"


def measured(config: Config, engine: ChosenEngine, model: ActorCritic, obs: Obs) -> tuple[Config, ThreadChoice | None]:
    """Return the settings with a number in place of run.threads: auto, and the measurement behind it.

    For another value of run.threads, return the same settings and None. Takes about a third of a second, with a copy of
    `model` and observations like `obs` (N, *obs); the state of the run does not change. Steps of the environments are
    not timed, because they cannot be undone.
    """
    if config.run.threads != "auto":
        return config, None
    limit = cores() if leaves(obs)[0].device.type == "cpu" else 1  # with a GPU the CPU does little arithmetic
    choice = ThreadChoice(1, {})
    if limit > 1:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            choice = choose(_update_time(config.ppo, engine, copy.deepcopy(model), obs), limit)
    torch.set_num_threads(choice.threads)
    LOG.info("%s", choice)
    return override(config, {"run.threads": choice.threads}), choice


def choose(seconds: Callable[[int], float], limit: int, clock: Callable[[], float] = time.perf_counter) -> ThreadChoice:
    """Choose the number of threads: start with one, and double it as long as that is clearly faster.

    seconds: a function that returns the time with a given number of threads. The two counts of a comparison alternate,
    so that other work on the machine affects both, and their medians are compared.
    """
    best, began = 1, clock()
    known: dict[int, float] = {}
    for count in _counts(limit):
        times: dict[int, list[float]] = {best: [], count: []}
        while len(times[best]) < ROUNDS[1] and (clock() - began < LIMIT or not times[best]):
            for each in times:
                times[each].append(seconds(each))
        known |= {each: median(rows) for each, rows in times.items()}
        if len(times[best]) < ROUNDS[0] or known[count] > CLEARLY * known[best]:
            break
        best = count
    return ThreadChoice(best, known)


def _counts(limit: int) -> Iterator[int]:
    """Yield 2, 4, 8, ... below the limit, then the limit itself."""
    count = 2
    while count < limit:
        yield count
        count *= 2
    yield limit


def _update_time(ppo: PPOConfig, engine: ChosenEngine, model: ActorCritic, obs: Obs) -> Callable[[int], float]:
    """Return a function of the thread count that measures the seconds of an update's passes through the network.

    They are those of its minibatches and, if torch acts, of its rollout.
    """
    N = len(leaves(obs)[0])
    L = min(ppo.chunk_length, ppo.num_steps) if model.recurrent else 1
    chunks = N * -(-ppo.num_steps // L)
    batch = -(-chunks // (ppo.num_minibatches * ppo.accumulate))

    def gradient(rows: int) -> Callable[[], Any]:
        _, some = pretend(ppo, model, obs, rows)
        return engine.probe(model, some, ppo)

    def act(rows: int) -> Callable[[], Any]:
        rollout, _ = pretend(ppo, model, obs, rows)
        seen, memory = at(rollout.obs, 0), model.initial_memory(rows)
        return torch.no_grad()(lambda: model.step(seen, memory, rollout.starts[0]))

    passes = [(*_affordable(gradient, batch), ppo.update_epochs * chunks)]
    if not engine.acting.in_numpy(model, obs):  # the products in NumPy are too small for threads, see numpy_rollout.py
        passes.append((*_affordable(act, N), ppo.num_steps * N))

    def seconds(count: int) -> float:
        torch.set_num_threads(count)
        total = 0.0
        for function, rows, all_rows in passes:
            first = _time(function)  # changing the number starts and stops threads, which takes time
            total += (first if first > LIMIT / 2 else _time(function)) * all_rows / rows
        return total

    return seconds


def _affordable(make: Callable[[int], Callable[[], Any]], wanted: int) -> tuple[Callable[[], Any], int]:
    """Return a pass on `wanted` rows, or on fewer if it would take long, and its number of rows."""
    rows = min(8, wanted)
    while True:
        function = make(rows)
        function()
        if rows >= wanted or _time(function) > PASS:
            return function, rows
        rows = min(2 * rows, wanted)


def _time(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def cores() -> int:
    """Return the cores that this process may use: the least of affinity, container quota and OMP_NUM_THREADS."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, min(allowed, _quota() or allowed, int(asked) if asked.isdecimal() else allowed))


def _quota(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the whole cores that the CPU limit of this container (cgroup v2) allows; None without a limit."""
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None
