"""Measurements of limits.py: a child process, see `measurement`. Every time is in microseconds per env step."""

from __future__ import annotations

import cProfile
import pstats
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bare import Way, env_ways, network_ways
from measurement import answer

from ppo_lab import Config, Trainer, Update, override

TOP = 8  # functions of the profile


def setting(config: dict[str, Any], seconds: float, rounds: int) -> dict[str, Any]:
    """Every piece, our environments behind the adapter, and our training, in turn, `rounds` times; then a profile."""
    trainer, updates = _warm(config)
    envs, adapted = env_ways(trainer)
    ways = {"environment": envs, **network_ways(trainer), "adapter": [adapted]}
    found: dict[str, list[float]] = {name: [] for name in (*ways, "rollout_ours", "learning_ours")}
    for _ in range(rounds):
        for name, several in ways.items():
            found[name].append(min(timed(way, seconds / len(several)) for way in several))
        for name, value in _train(updates, seconds).items():
            found[name].append(value)
    profile = _profile(updates, seconds)
    steps, batch = trainer.rollout.reward.numel(), trainer.config.ppo.num_minibatches
    told = {"num_envs": trainer.envs.num_envs, "num_steps": len(trainer.rollout), "minibatch": -(-steps // batch)}
    trainer.close()
    return told | {"update_epochs": trainer.config.ppo.update_epochs, "rounds": found, "profile": profile}


def scaling(config: dict[str, Any], seconds: float, num_envs: int) -> dict[str, Any]:
    """The cheapest of at least two updates with so many environments, and the memory they take, planned and seen."""
    small, _ = _warm(override_env(config, 64))  # what torch loads and keeps when it is first used
    small.close()
    before = _resident()
    trainer, updates = _warm(override_env(config, num_envs))
    each: list[float] = []
    began = time.perf_counter()
    while len(each) < 2 or time.perf_counter() - began < seconds:
        each.append(sum(_train(updates, 0.0).values()))
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    planned = trainer.memory_plan.total
    trainer.close()
    seen = None if before is None else peak - before
    return {"num_envs": num_envs, "microseconds": min(each), "planned_bytes": planned, "seen_bytes": seen}


def override_env(config: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """The same settings with another number of environments."""
    return config | {"env": config["env"] | {"num_envs": num_envs}}


def _warm(config: dict[str, Any]) -> tuple[Trainer, Iterator[Update]]:
    """A trainer after its first update, and its updates."""
    run = {"run.root": None, "run.device": "cpu", "run.threads": 1, "ppo.total_timesteps": 10**12}
    trainer = Trainer(override(Config(), config | run))
    updates = iter(trainer)
    next(updates)
    return trainer, updates


def timed(way: Way, seconds: float) -> float:
    """Mean over as many calls as fit into so many seconds, after one that does not count."""
    way.run()
    began, calls = time.perf_counter(), 0
    while True:
        way.run()
        calls += 1
        spent = time.perf_counter() - began
        if spent >= seconds:
            return 1e6 * spent / (calls * way.env_steps)


def _train(updates: Iterator[Update], seconds: float) -> dict[str, float]:
    """Rollout and learning of as many updates as fit into so many seconds, at least one."""
    rollout = learning = steps = 0.0
    while not steps or rollout + learning < seconds:
        metrics = next(updates).metrics
        own = metrics["time/rollout_seconds"], metrics["time/learn_seconds"]
        rollout, learning = rollout + own[0], learning + own[1]
        steps += metrics["time/steps_per_second"] * sum(own)
    return {"rollout_ours": 1e6 * rollout / steps, "learning_ours": 1e6 * learning / steps}


def _profile(updates: Iterator[Update], seconds: float) -> list[tuple[str, float]]:
    """Functions with the most time of their own while training, and their shares. The profiler slows Python down."""
    profiler = cProfile.Profile()
    began = time.perf_counter()
    with profiler:
        while True:
            next(updates)
            if time.perf_counter() - began >= seconds:
                break
    rows: dict[Any, Sequence[Any]] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]  # not in stubs
    total = sum(row[2] for row in rows.values())
    top = sorted(rows, key=lambda place: -rows[place][2])[:TOP]
    return [(_name(*place), round(rows[place][2] / total, 4)) for place in top]


def _name(file: str, line: int, function: str) -> str:
    """ "losses.py: ppo_loss", or a built-in's own name: no path of this machine."""
    return function.strip("<>") if file == "~" else f"{Path(file).name}: {function}"


def _resident() -> int | None:
    """Bytes of this process in memory; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * resource.getpagesize()


if __name__ == "__main__":
    answer({"setting": setting, "scaling": scaling})
