"""CartPole side by side with Stable-Baselines3: steps per second, and seconds to a mean return of 475.

    pip install -r requirements.txt && pip install -r benchmarks/requirements.txt
    python benchmarks/versus_sb3.py                     about 5 minutes; leave the machine alone meanwhile
    python benchmarks/versus_sb3.py --report            only write README.md anew from the results

Every measurement is a process of its own with one thread. The contenders take turns, A B C A B C ..., so that what
slows the machine down for a while slows down all of them.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from machine import hardware, load, versions
from measurement import measure, write_json
from report import goal_table, speed_table, write_readme
from settings import (
    GOAL_PRESET,
    GOAL_SB3,
    GOAL_SB3_ENVS,
    GOAL_SB3_STEPS,
    RESULTS,
    SPEED_OURS,
    SPEED_SB3,
    UPDATES,
    WARM_UP,
    preset_settings,
)
from tqdm import tqdm

OUT = RESULTS / "versus_sb3.json"
PACKAGES = ("torch", "gymnasium", "numpy", "stable_baselines3", "ppo_lab")

Contenders = Mapping[str, Callable[[int], dict[str, Any]]]  # name -> its measurement, given a seed


def speed_contenders(updates: int) -> Contenders:
    """Who is timed over a fixed number of updates."""
    span = {"warm_up": WARM_UP, "updates": updates}

    def ours(env: str, records: bool) -> Callable[[int], dict[str, Any]]:
        return lambda seed: measure("ours.py", "speed", env=env, records=records, seed=seed, **span)

    return {
        "sb3": lambda seed: measure("sb3.py", "speed", seed=seed, **span),
        "ours_same_env": ours("CartPole-v1", False),
        "ours_same_env_records": ours("CartPole-v1", True),
        "ours_batched": ours("ppo_lab/CartPole-v1", False),
        "ours_batched_records": ours("ppo_lab/CartPole-v1", True),
    }


def goal_contenders(preset: dict[str, Any]) -> Contenders:
    """Who is timed until the goal."""

    def ours(records: bool) -> Callable[[int], dict[str, Any]]:
        return lambda seed: measure("ours.py", "goal", config=preset, seed=seed, records=records)

    return {
        "sb3": lambda seed: measure("sb3.py", "goal", seed=seed),
        "ours": ours(records=False),
        "ours_records": ours(records=True),
    }


def in_turns(contenders: Contenders, repeats: int, what: str) -> list[dict[str, Any]]:
    """Every contender once with seed 1, then every one with seed 2, ..."""
    measurements = []
    turns = [(seed, name) for seed in range(1, repeats + 1) for name in contenders]
    progress = tqdm(turns, desc=what)
    for seed, name in progress:
        progress.set_postfix_str(f"{name}, seed {seed}")
        measurements.append({"contender": name, "seed": seed, **contenders[name](seed)})
    return measurements


def settings_used(updates: int) -> dict[str, Any]:
    """What both sides ran with, for the record."""
    zoo = {"env": "CartPole-v1", "n_envs": GOAL_SB3_ENVS, "n_timesteps": GOAL_SB3_STEPS, **GOAL_SB3}
    return {
        "speed": {"warm_up_updates": WARM_UP, "updates": updates, "sb3": SPEED_SB3, "ours": SPEED_OURS},
        "goal": {"sb3": zoo, "ours": preset_settings(GOAL_PRESET)},
    }


def run(repeats: int, updates: int) -> dict[str, Any]:
    """All measurements, with what they were made on."""
    load_before = load()
    settings = settings_used(updates)
    return {
        "machine": hardware(),
        "versions": versions(PACKAGES),
        "settings": settings,
        "speed": in_turns(speed_contenders(updates), repeats, "steps per second"),
        "goal": in_turns(goal_contenders(settings["goal"]["ours"]), repeats, "seconds to 475"),
        "load": {"before": load_before, "after": load()},
    }


def main() -> None:
    """Measure, write the results, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each contender (seeds 1, 2, ...)")
    parser.add_argument("--updates", type=int, default=UPDATES, help="updates under the clock for steps per second")
    parser.add_argument("--out", type=Path, default=OUT, help="results; README.md shows those of the default place")
    parser.add_argument("--report", action="store_true", help="measure nothing, write README.md from the results")
    options = parser.parse_args()
    if options.repeats < 1 or options.updates < 1:
        parser.error("--repeats and --updates: at least 1")
    if options.report:
        write_readme()
        return
    if importlib.util.find_spec("stable_baselines3") is None:
        parser.error("Stable-Baselines3 is not installed: pip install -r benchmarks/requirements.txt")
    results = run(options.repeats, options.updates)
    write_json(options.out, results)
    print(f"\n{speed_table(results)}\n\n{goal_table(results)}\n\n{options.out}")
    if options.out.resolve() == OUT:
        write_readme()


if __name__ == "__main__":
    main()
