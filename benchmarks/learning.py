"""What the presets of config.yaml learn, over seeds.

    python benchmarks/learning.py                          all presets, a process for each core
    python benchmarks/learning.py --preset pendulum --seeds 5

Seeds that were measured already, with the same settings, versions and processor, are not run again (--fresh: they are;
that is for when the code has changed). The results go to results/learning.json, and from there into README.md.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

from machine import cores, hardware, versions
from measurement import measure, write_json
from report import learning_table, write_readme
from settings import RESULTS, preset_settings
from tqdm import tqdm

from ppo_lab.evaluation import statistics

OUT = RESULTS / "learning.json"
EPISODES = 100  # of the evaluation
PACKAGES = ("torch", "gymnasium", "numpy", "ppo_lab")


class Task(NamedTuple):
    """What is asked of a preset."""

    seeds: int
    threshold: float  # of the mean return: of the last 100 episodes of training, and of the evaluation
    judged_on: str  # environment of the evaluation: Gymnasium's own where there is one


TASKS = {
    "cartpole": Task(10, 475.0, "CartPole-v1"),
    "pendulum": Task(5, -200.0, "Pendulum-v1"),
    "acrobot": Task(5, -90.0, "Acrobot-v1"),
}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The seeds of one preset together: IQM of their evaluations and its 95 % bootstrap interval over seeds."""
    means = [run["evaluation_mean"] for run in runs]
    low, high = statistics.bootstrap_interval(means) if len(means) > 1 else (None, None)
    return {"seeds": len(runs), "iqm": statistics.iqm(means), "interval": [low, high]}


def made_with(preset: str) -> dict[str, Any]:
    """What a result depends on: one that was made with anything else is not taken over."""
    _, threshold, judged_on = TASKS[preset]
    made = {
        "config": preset_settings(preset),
        "task": {"threshold": threshold, "judged_on": judged_on, "episodes": EPISODES},
        "machine": hardware(),
        "versions": versions(PACKAGES),
    }
    same_as_read_back: dict[str, Any] = json.loads(json.dumps(made))
    return same_as_read_back


def known_runs(results: dict[str, Any], preset: str, made: dict[str, Any]) -> list[dict[str, Any]]:
    """The finished seeds of a preset that still hold."""
    entry = results.get(preset, {})
    runs: list[dict[str, Any]] = entry.get("runs", []) if entry.get("made_with") == made else []
    return runs


def learn(made: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train and judge one seed in a process of its own."""
    return measure("ours.py", "learn", config=made["config"], seed=seed, **made["task"])


def run(presets: list[str], seeds: int | None, fresh: bool, processes: int) -> dict[str, Any]:
    """Run what is missing; the results are written after every seed."""
    results: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    waiting = []
    for preset in presets:
        made = made_with(preset)
        runs = [] if fresh else known_runs(results, preset, made)
        results[preset] = {"made_with": made, "summary": summary(runs) if runs else None, "runs": runs}
        known = {run["seed"] for run in runs}
        waiting += [(preset, seed) for seed in range(1, (seeds or TASKS[preset].seeds) + 1) if seed not in known]
    with ThreadPoolExecutor(processes) as pool:
        futures = {pool.submit(learn, results[preset]["made_with"], seed): preset for preset, seed in waiting}
        try:
            for future in tqdm(as_completed(futures), total=len(futures), desc="seeds"):
                if future.exception() is None:
                    _add(results, futures[future], {**future.result(), "processes": processes})
        except BaseException:  # Ctrl-C
            pool.shutdown(cancel_futures=True)
            raise
    for future in futures:
        future.result()  # raises what went wrong with a seed; the others are safe by now
    return results


def _add(results: dict[str, Any], preset: str, finished: dict[str, Any]) -> None:
    """Take one finished seed in, and write all results."""
    entry = results[preset]
    entry["runs"] = sorted([*entry["runs"], finished], key=lambda run: run["seed"])
    entry["summary"] = summary(entry["runs"])
    write_json(OUT, {name: entry for name, entry in results.items() if entry["runs"]})


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", nargs="+", choices=TASKS, default=list(TASKS), help="which; default: all")
    parser.add_argument("--seeds", type=int, help="seeds 1, 2, ...; default: 10 for cartpole, 5 for the others")
    parser.add_argument("--fresh", action="store_true", help="run finished seeds again")
    parser.add_argument("--processes", type=int, default=cores(), help="seeds at a time; default: one a core")
    parser.add_argument("--report", action="store_true", help="measure nothing, write README.md from the results")
    options = parser.parse_args()
    if options.processes < 1 or (options.seeds is not None and options.seeds < 1):
        parser.error("--seeds and --processes: at least 1")
    if not options.report:
        print(learning_table(run(options.preset, options.seeds, options.fresh, options.processes)))
    write_readme()


if __name__ == "__main__":
    main()
