"""README.md and the printed tables, from the results alone: pure functions of what results/*.json hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

from settings import GOAL, RESULTS, ROOT

Measurement = dict[str, Any]

SPEED_NAMES = {
    "sb3": "Stable-Baselines3, `CartPole-v1` in its DummyVecEnv",
    "ours_same_env": "ppo_lab, the same `CartPole-v1`",
    "ours_same_env_records": "ppo_lab, the same `CartPole-v1`, with records",
    "ours_batched": "ppo_lab, its batched `ppo_lab/CartPole-v1`",
    "ours_batched_records": "ppo_lab, its batched `ppo_lab/CartPole-v1`, with records",
}
GOAL_NAMES = {
    "sb3": "Stable-Baselines3, settings of RL Zoo",
    "ours": "ppo_lab, preset `cartpole`",
    "ours_records": "ppo_lab, preset `cartpole`, with records",
}

INTRODUCTION = """\
# Benchmarks

Written by `python benchmarks/versus_sb3.py --report` from `results/*.json`: change the results, not this page.
"""

VERSUS = """\
## CartPole, side by side with Stable-Baselines3

    pip install -r requirements.txt && pip install -r benchmarks/requirements.txt
    python benchmarks/versus_sb3.py

Each of the {repeats} repeats measures every row once, in turn, with its own seed; each measurement is a process
of its own with one thread and no GPU. Tables give the median (lowest to highest). "Against SB3" is the ratio of
the medians, in brackets the range of the ratios within a repeat; "CPU time" is the ratio in seconds of
computing, which other work on the machine disturbs less. Stable-Baselines3 logs nothing. "With records" is
ppo_lab as it comes, writing metrics.jsonl and TensorBoard files; without, it writes nothing either. Loading
libraries and making environments and networks is outside the clock on both sides.

### Steps per second

Both with settings that are usual for Stable-Baselines3: 8 environments x 128 steps, 4 epochs, minibatches of
256, two separate networks of two 64-unit tanh layers (the rest is in `settings.py`). {steps} steps after
{warm_up} updates of warm-up. The aim: at least 1.5 times the steps per second.

{speed}

### Seconds to a mean return of {goal:g}

From the first line of the training loop until the last 100 episodes of training have a mean return of {goal:g}.
Each side has its best known settings: Stable-Baselines3 those of RL Zoo (`hyperparams/ppo.yml`), whose learning
rate and clip range fall to 0 over {budget} steps, where the run ends; ppo_lab its preset. A run that does not
get there counts with all its seconds, which flatters it, and is missing under "reached". The aim: at most a
quarter of the seconds.

{table}

{machine}
Load average before {before}, after {after} (1: one process computing, as here).
"""

LEARNING = """\
## What the presets learn

    python benchmarks/learning.py

Every seed trains to the end of its budget and is then judged on 100 fresh episodes with the most likely
actions. IQM is the interquartile mean over seeds of their means, with its 95 % bootstrap interval. "Reached"
counts the seeds whose last 100 episodes of training had the threshold as their mean at some time; "steps to it"
says when (median, latest). Seconds are of training, {processes} seeds at a time, median (lowest to highest).

{table}

{machine}
"""

SAVING = """\
## What saving costs

    python benchmarks/saving.py --json benchmarks/results/saving.json

A run of the preset `{preset}` with its default settings spends {share:.2%} of its time on checkpoints (median of
{runs} runs; {checkpoints} checkpoints each, synced to disk and read back). The aim: less than {limit:.0%}.
"""


class Ratio(NamedTuple):
    """How one contender does against another in one quantity."""

    of_medians: float
    lowest_pair: float  # pairs are measurements of one repeat
    highest_pair: float


def ratio(ours: Sequence[Measurement], theirs: Sequence[Measurement], value: Callable[[Measurement], float]) -> Ratio:
    """ours / theirs of a quantity, for measurements of the same seeds in any order."""
    other = {one["seed"]: value(one) for one in theirs}
    pairs = [value(one) / other[one["seed"]] for one in ours]
    return Ratio(median(map(value, ours)) / median(other.values()), min(pairs), max(pairs))


def speed_table(results: dict[str, Any]) -> str:
    """Steps per second of every contender."""
    rows = []
    sb3 = _of(results["speed"], "sb3")
    for name, title in SPEED_NAMES.items():
        runs = _of(results["speed"], name)
        shown = _spread([_rate(run) for run in runs], ",.0f")
        against = [_ratio(ratio(runs, sb3, _rate)), f"{ratio(sb3, runs, _cpu).of_medians:.2f}"]
        rows.append([title, shown, *(against if name != "sb3" else ["1", "1"])])
    return _markdown(["", "steps per second", "against SB3", "CPU time"], rows)


def goal_table(results: dict[str, Any]) -> str:
    """Seconds to the goal of every contender."""
    rows = []
    sb3 = _of(results["goal"], "sb3")
    for name, title in GOAL_NAMES.items():
        runs = _of(results["goal"], name)
        reached = f"{sum(run['reached'] for run in runs)} of {len(runs)}"
        seconds = _spread([_seconds(run) for run in runs], ".2f")
        steps = _spread([run["steps"] for run in runs], ",.0f")
        against = [_ratio(ratio(runs, sb3, _seconds)), f"{ratio(runs, sb3, _cpu).of_medians:.2f}"]
        rows.append([title, reached, seconds, *(against if name != "sb3" else ["1", "1"]), steps])
    return _markdown(["", "reached", "seconds", "against SB3", "CPU time", "env steps"], rows)


def learning_table(results: dict[str, Any]) -> str:
    """What every preset learned."""
    rows = []
    for preset, entry in results.items():
        runs, low_high, task = entry["runs"], entry["summary"]["interval"], entry["made_with"]["task"]
        at = sorted(run["reached_at"] for run in runs if run["reached_at"] is not None)
        interval = "" if None in low_high else f" ({low_high[0]:.1f} to {low_high[1]:.1f})"
        row = [preset, f"`{task['judged_on']}`", f"{max(run['steps'] for run in runs):,}", f"{len(runs)}"]
        row += [f"{entry['summary']['iqm']:.1f}{interval}", f"{min(run['evaluation_mean'] for run in runs):.1f}"]
        row += [f"{task['threshold']:g}", f"{len(at)} of {len(runs)}", f"{median(at):,.0f}, {at[-1]:,}" if at else "-"]
        rows.append([*row, _spread([_seconds(run) for run in runs], ".0f")])
    heads = ["preset", "judged on", "steps", "seeds", "IQM (95 % interval)", "worst seed", "threshold", "reached"]
    return _markdown([*heads, "steps to it", "seconds"], rows)


def readme(versus: dict[str, Any] | None, learning: dict[str, Any] | None, saving: dict[str, Any] | None = None) -> str:
    """The whole page; a part without results is left out."""
    parts = [INTRODUCTION]
    if versus:
        sb3 = _of(versus["speed"], "sb3")
        filled = VERSUS.format(
            repeats=len(sb3),
            steps=f"{sb3[0]['steps']:,}",
            warm_up=versus["settings"]["speed"]["warm_up_updates"],
            budget=f"{versus['settings']['goal']['sb3']['n_timesteps']:,}",
            goal=GOAL,
            speed=speed_table(versus),
            table=goal_table(versus),
            machine=_machine(versus),
            **versus["load"],
        )
        parts.append(filled)
    if learning:
        machines = dict.fromkeys(_machine(entry["made_with"]) for entry in learning.values())
        at_a_time = sorted({run["processes"] for entry in learning.values() for run in entry["runs"]})
        filled = LEARNING.format(
            processes=" or ".join(map(str, at_a_time)), table=learning_table(learning), machine="\n".join(machines)
        )
        parts.append(filled)
    if saving:
        checkpoints = saving["runs"][0]["checkpoints"]
        parts.append(SAVING.format(**{**saving, "runs": len(saving["runs"])}, checkpoints=checkpoints))
    return "\n".join(parts)


def write_readme() -> None:
    """Write benchmarks/README.md from results/*.json."""
    found = {}
    for name in ("versus_sb3", "learning", "saving"):
        path = RESULTS / f"{name}.json"
        found[name] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    (ROOT / "benchmarks" / "README.md").write_text(readme(*found.values()), encoding="utf-8")


def _of(measurements: Sequence[Measurement], contender: str) -> list[Measurement]:
    return [one for one in measurements if one["contender"] == contender]


def _rate(run: Measurement) -> float:
    return float(run["steps"] / run["seconds"])


def _seconds(run: Measurement) -> float:
    return float(run["seconds"])


def _cpu(run: Measurement) -> float:
    return float(run["cpu_seconds"])


def _spread(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def _ratio(one: Ratio) -> str:
    return f"**{one.of_medians:.2f}** ({one.lowest_pair:.2f} to {one.highest_pair:.2f})"


def _machine(results: dict[str, Any]) -> str:
    machine, versions = results["machine"], results["versions"]
    return (
        f"Measured on {machine['cpu']}, {machine['cores']} cores, {machine['system']}, with "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as a Markdown table whose columns line up in plain text too."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
