"""What the presets of config.yaml learn, over seeds.

    python benchmarks/learning.py                          those that take minutes, a process for each core
    python benchmarks/learning.py --all --runs DIR         all presets: hours to days
    python benchmarks/learning.py --preset hopper --seeds 3 --runs DIR

Seeds that were measured already, with the same settings, versions and processor, are not run again (--fresh: they are;
that is for when the code has changed). With --runs the run of each seed is kept in a folder there, and one that was
interrupted goes on from its newest checkpoint. A preset whose environment needs a package that is not installed is
passed over with the line that installs it. The results go to results/learning.json, and from there into README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gymnasium.error import DependencyNotInstalled
from learned import beside_table, learning_table
from machine import cores, hardware, versions
from measurement import measure, write_json
from report import write_readme
from settings import RESULTS, preset_names, preset_settings
from tqdm import tqdm

from ppo_lab import Config, override
from ppo_lab.envs.making import make_envs
from ppo_lab.errors import ConfigError, EnvError
from ppo_lab.evaluation import statistics

OUT = RESULTS / "learning.json"
PACKAGES = ("torch", "gymnasium", "numpy", "ppo_lab")


class Task(NamedTuple):
    """What is asked of a preset."""

    seeds: int = 5
    threshold: float | None = None  # of the mean return of the last 100 episodes of training
    judged_on: str | None = None  # environment of the evaluation; None: the preset's own, with its wrappers
    episodes: int = 100  # of the evaluation
    deterministic: bool = True  # the most likely action; False: drawn, as RL Zoo does on Atari and MiniGrid
    package: str | None = None  # whose version the result depends on besides PACKAGES
    quick: bool = False  # all seeds take minutes
    steps: int | None = None  # trained with, where the preset's own budget takes too long here

    def asked(self) -> dict[str, Any]:
        """What the child needs to know."""
        names = ("threshold", "judged_on", "episodes", "deterministic")
        return {name: getattr(self, name) for name in names}


TASKS = {
    "cartpole": Task(10, 475.0, "CartPole-v1", quick=True),  # trained in ours, judged in Gymnasium's
    "pendulum": Task(5, -200.0, quick=True),
    "acrobot": Task(5, -90.0, quick=True),
    "mountain_car_continuous": Task(5, 90.0, quick=True),
    "cartpole_no_velocity": Task(5, 475.0, quick=True),
    "door_key": Task(5, 0.95, deterministic=False, package="minigrid"),
    "lunar_lander": Task(5, 220.0, package="Box2D"),
    "bipedal_walker": Task(3, 285.0, package="Box2D"),
    "hopper": Task(5, 2400.0, package="mujoco"),
    "half_cheetah": Task(8, 5000.0, package="mujoco"),
    "walker2d": Task(3, 3500.0, package="mujoco"),
    "pong": Task(1, 0.0, episodes=30, deterministic=False, package="ale-py", steps=3_000_000),
    "pong_small": Task(1, 0.0, episodes=30, deterministic=False, package="ale-py"),  # the preset's own budget is short
    "breakout": Task(1, None, episodes=30, deterministic=False, package="ale-py", steps=3_000_000),
}


def task_of(preset: str) -> Task:
    """What is asked of a preset; of one that is not in TASKS, five seeds."""
    return TASKS.get(preset, Task())


def known_presets() -> list[str]:
    """The presets of config.yaml, those in TASKS first and in that order."""
    known = preset_names()
    return [*(name for name in TASKS if name in known), *(name for name in known if name not in TASKS)]


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The seeds of one preset together: IQM of their evaluations and its 95 % bootstrap interval over seeds."""
    means = [run["evaluation_mean"] for run in runs]
    low, high = statistics.bootstrap_interval(means) if len(means) > 1 else (None, None)
    return {"seeds": len(runs), "iqm": statistics.iqm(means), "interval": [low, high]}


def made_with(preset: str, steps: int | None = None) -> dict[str, Any]:
    """What a result depends on: one that was made with anything else is not taken over.

    steps: to train with, instead of what the task or else the preset says.
    """
    task, config = task_of(preset), preset_settings(preset)
    config["ppo"]["total_timesteps"] = steps or task.steps or config["ppo"]["total_timesteps"]
    made = {
        "config": config,
        "task": task.asked(),
        "machine": hardware(),
        "versions": versions((*PACKAGES, *filter(None, [task.package]))),
    }
    same_as_read_back: dict[str, Any] = json.loads(json.dumps(made))
    return same_as_read_back


def missing(preset: str) -> str | None:
    """The line that says which package the preset's environment needs; None if it can be made.

    Raises EnvError or ConfigError if it cannot be made for any other reason.
    """
    try:
        config = override(Config(), preset_settings(preset))
        make_envs(override(config, {"env.num_envs": 1, "env.workers": 0}), torch.device("cpu")).close()
    except (ConfigError, EnvError) as error:
        if isinstance(error.__cause__, ImportError | DependencyNotInstalled):
            return str(error)
        raise
    return None


def known_runs(results: dict[str, Any], preset: str, made: dict[str, Any]) -> list[dict[str, Any]]:
    """The finished seeds of a preset that still hold."""
    entry = results.get(preset, {})
    runs: list[dict[str, Any]] = entry.get("runs", []) if entry.get("made_with") == made else []
    return runs


def folder_of(runs: Path | None, preset: str, made: dict[str, Any], seed: int) -> Path | None:
    """Where the run of a seed lies: with other settings or versions in another folder. None: it is not kept."""
    key = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:8]
    return None if runs is None else runs.resolve() / f"{preset[:40]}-{key}-{seed}"


def learn(made: dict[str, Any], seed: int, folder: Path | None, fresh: bool) -> dict[str, Any]:
    """Train and judge one seed in a process of its own. fresh: what is left of an earlier run of it is removed."""
    if fresh and folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    where = str(folder) if folder is not None else None
    return measure("learn_seed.py", "learn", config=made["config"], seed=seed, folder=where, **made["task"])


def run(
    names: list[str],
    seeds: int | None,
    fresh: bool,
    processes: int,
    runs_folder: Path | None = None,
    steps: int | None = None,
) -> dict[str, Any]:
    """Run what is missing; the results are written after every seed. Returns those of all presets ever measured."""
    results: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    waiting = []
    for preset in names:
        if (reason := missing(preset)) is not None:
            print(f"{preset} is passed over: {reason}")
            continue
        made = made_with(preset, steps)
        runs = [] if fresh else known_runs(results, preset, made)
        results[preset] = {"made_with": made, "summary": summary(runs) if runs else None, "runs": runs}
        known = {run["seed"] for run in runs}
        waiting += [(preset, seed) for seed in range(1, (seeds or task_of(preset).seeds) + 1) if seed not in known]
    with ThreadPoolExecutor(processes) as pool:
        futures = {}
        for preset, seed in waiting:
            made = results[preset]["made_with"]
            futures[pool.submit(learn, made, seed, folder_of(runs_folder, preset, made, seed), fresh)] = preset
        try:
            for future in tqdm(as_completed(futures), total=len(futures), desc="seeds"):
                if future.exception() is None:
                    _add(results, futures[future], {**future.result(), "processes": processes})
        except BaseException:  # Ctrl-C
            pool.shutdown(cancel_futures=True)
            raise
    for future in futures:
        future.result()  # raises what went wrong with a seed; the others are safe by now
    return _finished(results)


def _add(results: dict[str, Any], preset: str, finished: dict[str, Any]) -> None:
    """Take one finished seed in, and write all results."""
    entry = results[preset]
    entry["runs"] = sorted([*entry["runs"], finished], key=lambda run: run["seed"])
    entry["summary"] = summary(entry["runs"])
    write_json(OUT, _finished(results))


def _finished(results: dict[str, Any]) -> dict[str, Any]:
    """The presets that have a seed to show, in the order of TASKS."""
    names = [*(name for name in TASKS if name in results), *(name for name in results if name not in TASKS)]
    return {name: results[name] for name in names if results[name]["runs"]}


def main() -> None:
    """Measure, write the results, print the tables."""
    known = known_presets()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", nargs="+", choices=known, help="which; default: those that take minutes")
    parser.add_argument("--all", action="store_true", help="every preset with a task, those that take days too")
    parser.add_argument("--seeds", type=int, help="seeds 1, 2, ...; default: what TASKS says, else 5")
    parser.add_argument("--steps", type=int, help="env steps of a seed; default: what TASKS or the preset says")
    parser.add_argument("--runs", type=Path, help="folder for the runs, so that interrupted seeds go on")
    parser.add_argument("--fresh", action="store_true", help="run finished seeds again")
    parser.add_argument("--processes", type=int, default=cores(), help="seeds at a time; default: one a core")
    parser.add_argument("--report", action="store_true", help="measure nothing, write README.md from the results")
    options = parser.parse_args()
    if min(options.processes, *(given for given in (options.seeds, options.steps) if given is not None), 1) < 1:
        parser.error("--seeds, --steps and --processes: at least 1")
    if options.all and options.preset:
        parser.error("--all and --preset exclude each other")
    names = options.preset or [name for name in known if name in TASKS and (options.all or TASKS[name].quick)]
    if not options.report:
        results = run(names, options.seeds, options.fresh, options.processes, options.runs, options.steps)
        print(f"\n{learning_table(results)}\n\n{beside_table(results)}")
    write_readme()


if __name__ == "__main__":
    main()
