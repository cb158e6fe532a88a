"""What results/peers.json says, as the part of benchmarks/README.md and as the table of README.md."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Any

from settings import GOAL, WINDOW
from tables import cpu, machine_line, markdown, of, rate, ratio, shown, spread, wall
from workloads import WORKLOADS, Workload

THEIRS = {
    "sb3": "Stable-Baselines3",
    "sb3_contrib": "sb3-contrib's RecurrentPPO",
    "sbx": "SBX (JAX)",
    "pufferlib": "PufferLib",
    "cleanrl": "CleanRL's script",
}
OURS = {
    "ours": "ppo_lab",
    "ours_records": "ppo_lab, with records",
    "ours_batched": "ppo_lab, its batched `ppo_lab/CartPole-v1`",
    "ours_batched_records": "ppo_lab, its batched `ppo_lab/CartPole-v1`, with records",
    "ours_far": "ppo_lab, chunks of 128",
    "ours_gru": "ppo_lab, a GRU",
    "ours_bfloat16": "ppo_lab, bodies in bfloat16 (`model.precision`)",
}
NAMES = THEIRS | OURS
GOAL_NAMES = {
    "sb3": "Stable-Baselines3, settings of RL Zoo",
    "ours": "ppo_lab, preset `cartpole`",
    "ours_records": "ppo_lab, preset `cartpole`, with records",
}
SHORT = {
    "": "",
    "ours_batched": ", our batched one",
    "ours_far": ", gradients as far back",
    "ours_bfloat16": ", ours in bfloat16",
}

PART = """\
## Side by side with others

    pip install -r requirements.txt && pip install -r benchmarks/requirements.txt
    python benchmarks/peers.py

Each of the {repeats} repeats measures every row of a table once, in turn, with its own seed; each measurement is a
process of its own without a GPU, with {threads}. Tables give the median (lowest to
highest). "Against" is the ratio of the medians to the first row, in brackets the range of the ratios within a
repeat. "CPU time" is how many times less computing an env step takes, which other work on the machine disturbs less.
"Memory" is the most that the process had at once, libraries included. Loading libraries, making environments and
networks and the first updates are outside the clock.

Settings are equal, networks included (`workloads.py`). Nothing is logged but in the rows "with records": ppo_lab as it
comes, writing metrics.jsonl and TensorBoard files.{notes}

{tables}

{machine}
Load average before {before}, after {after} (1: one process computing, as here).
"""

NOTES = {  # what is told of a contender where it took part
    "sbx": "SBX compiles its update with JAX in the first ones, which do not count.",
    "pufferlib": "PufferLib's minibatches are whole rows of the rollout, with advantages computed again before each.",
    "cleanrl": "CleanRL's scripts run twice, short and long, and the difference counts; they write TensorBoard files.",
}

RECURRENT = """\
The defaults of sb3-contrib. ppo_lab has the same LSTMs with the two layers of 64 units before them, so that its LSTMs
read 64 features where the others read CartPole's 4 numbers: {ours:,} parameters against {theirs:,}. Minibatches are
made of chunks: gradients go back through at most 16 steps (8 chunks a minibatch), or 128 (1 chunk) as in sb3-contrib.
"Return" is the mean of the last 100 episodes at the end: the better a policy, the longer its episodes, on which
sb3-contrib is slower."""

TO_GOAL = """\
### Seconds to a mean return of {goal:g}

From the first line of the training loop until the last {window} episodes of training have a mean return of {goal:g}.
Each side has its best known settings: Stable-Baselines3 those of RL Zoo (`hyperparams/ppo.yml`), whose learning
rate and clip range fall to 0 over {budget} steps, where the run ends; ppo_lab its preset. A run that does not
get there counts with all its seconds, which flatters it, and is missing under "reached". {seeds} seeds.

{table}"""

BEGIN = "<!-- written by `python benchmarks/peers.py --report` from benchmarks/results/peers.json -->\n"
END = "<!-- end of what is written -->\n"
NOT_YET = "Not measured yet: `python benchmarks/peers.py` takes about 25 minutes and writes the table here.\n"
SUMMARY = """\
{table}

`python benchmarks/peers.py`: medians of {repeats}{seeds}; equal settings; {threads}. A ratio of 2 says that
ppo_lab is twice as fast; memory is the peak of a process, libraries included.
{machine}
"""


def peers_part(results: dict[str, Any]) -> str:
    """The whole part of benchmarks/README.md."""
    about = {"repeats": _repeats(results), "threads": threads_line(results), "machine": machine_line(results)}
    notes = "".join(f"\n{note}" for who, note in NOTES.items() if who in _took_part(results))
    return PART.format(tables=peers_tables(results), notes=notes, **about, **results["load"])


def peers_tables(results: dict[str, Any]) -> str:
    """A heading and a table for each workload."""
    parts = []
    for name, runs in results["measurements"].items():
        settings = results["settings"][name]
        if name == "goal":
            budget, seeds = f"{settings['sb3']['n_timesteps']:,}", len(of(runs, "sb3"))
            about = {"goal": GOAL, "window": WINDOW, "budget": budget, "seeds": seeds}
            parts.append(TO_GOAL.format(table=goal_table(runs), **about))
            continue
        one, steps = workload_of(name, settings), of(runs, runs[0]["contender"])[0]["steps"]
        span = f"{steps:,} env steps after {settings['warm_up_updates'] * one.rows:,} that do not count."
        told = [f"### {one.title}, {one.shape}", f"`{one.env}`. {span}"]
        if name == "recurrent":
            counts = [of(runs, who)[0]["parameters"] for who in ("ours", one.baseline)]
            told.append(RECURRENT.format(ours=counts[0], theirs=counts[1]))
        parts += [*told, speed_table(runs)]
    return "\n\n".join(parts)


def workload_of(name: str, settings: dict[str, Any]) -> Workload:
    """The workload as it was measured."""
    return replace(WORKLOADS[name], ours=settings["ours"])


def speed_table(runs: list[dict[str, Any]]) -> str:
    """Steps per second of every contender, and what they cost."""
    first = of(runs, runs[0]["contender"])
    returns = runs[0]["contender"] == "sb3_contrib"
    rows = []
    for name in dict.fromkeys(run["contender"] for run in runs):
        own = of(runs, name)
        against = [shown(ratio(own, first, rate)), f"{ratio(first, own, cost).of_medians:.2f}"]
        row = [NAMES[name], spread([rate(run) for run in own], ",.0f"), *(["1", "1"] if own == first else against)]
        row += [f"{median(map(cost, own)):,.1f}", f"{_memory(own):,.0f} MB"]
        rows.append([*row, _mean_return(own)] if returns else row)
    heads = ["", "steps per second", "against", "CPU time", "CPU s per million steps", "memory"]
    return markdown([*heads, "return"] if returns else heads, rows)


def goal_table(runs: list[dict[str, Any]]) -> str:
    """Seconds to the goal of every contender."""
    rows = []
    first = of(runs, "sb3")
    for name, title in GOAL_NAMES.items():
        own = of(runs, name)
        reached = f"{sum(run['reached'] for run in own)} of {len(own)}"
        steps = spread([run["steps"] for run in own], ",.0f")
        against = [shown(ratio(own, first, wall)), f"{ratio(own, first, cpu).of_medians:.2f}"]
        row = [title, reached, spread([wall(run) for run in own], ".2f"), *(["1", "1"] if name == "sb3" else against)]
        rows.append([*row, steps, f"{_memory(own):,.0f} MB"])
    return markdown(["", "reached", "seconds", "against", "CPU time", "env steps", "memory"], rows)


def summary(results: dict[str, Any] | None) -> str:
    """What README.md shows: one table, a row for each workload and environment."""
    if results is None:
        return NOT_YET
    measured = results["measurements"]
    others = [who for who in NOTES if who in _took_part(results)]
    heads = ["steps per second", "ppo_lab", "Stable-Baselines3", "ratio", "in CPU time", "memory"]
    rows = []
    for name, runs in measured.items():
        if name == "goal":
            continue
        one = workload_of(name, results["settings"][name])
        for variant, words in SHORT.items():
            own = of(runs, variant or "ours")
            if own:
                place = f"{one.title}, {one.shape}" if not variant else f"the same{words}"
                rows.append([place, *_compared(own, of(runs, one.baseline)), *(_rate(of(runs, who)) for who in others)])
    if "goal" in measured:
        rows.append([*_goal_row(measured["goal"]), *("" for _ in others)])
    count = len(of(measured.get("goal", []), "sb3"))
    seeds = f" ({count} seeds in the last row, where each has its best known settings)" if count else ""
    about = {"repeats": _repeats(results), "seeds": seeds, "threads": threads_line(results)}
    table = markdown([*heads, *(THEIRS[who] for who in others)], rows)
    return SUMMARY.format(table=table, machine=machine_line(results), **about)


def with_summary(page: str, results: dict[str, Any] | None) -> str:
    """README.md with its table written anew. Raises ValueError if the page has no place for it."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("README.md lacks the two comments between which the table of benchmarks/peers.py stands")
    return before + begin + summary(results) + end + after


def threads_line(results: dict[str, Any]) -> str:
    """ "one thread each (Pong: 2)"."""
    counts = {name: one["threads"] for name, one in results["settings"].items() if "threads" in one}
    more = ", ".join(f"{WORKLOADS[name].title}: {count}" for name, count in counts.items() if count != 1)
    return "one thread each" + (f" ({more})" if more else "")


def cost(run: dict[str, Any]) -> float:
    """Seconds of computing for a million env steps."""
    return 1e6 * cpu(run) / float(run["steps"])


def _took_part(results: dict[str, Any]) -> set[str]:
    return {run["contender"] for runs in results["measurements"].values() for run in runs}


def _compared(own: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[str]:
    """Steps per second of both, and how many times as fast ours are by the clock and in computing."""
    who = " (sb3-contrib)" if theirs[0]["contender"] == "sb3_contrib" else ""
    faster, less = ratio(own, theirs, rate), ratio(theirs, own, cost)
    numbers = [f"{faster.of_medians:.1f}", f"{less.of_medians:.1f}"]
    return [_rate(own), _rate(theirs) + who, *numbers, _memories(own, theirs)]


def _goal_row(runs: list[dict[str, Any]]) -> list[str]:
    own, theirs = of(runs, "ours"), of(runs, "sb3")
    seconds = [f"{median(map(wall, each)):.1f} s" for each in (own, theirs)]
    numbers = [f"{ratio(theirs, own, value).of_medians:.1f}" for value in (wall, cpu)]
    return [f"CartPole, seconds to a mean return of {GOAL:g}", *seconds, *numbers, _memories(own, theirs)]


def _rate(runs: list[dict[str, Any]]) -> str:
    return f"{median(map(rate, runs)):,.0f}" if runs else ""


def _memory(runs: list[dict[str, Any]]) -> float:
    return float(median(run["peak_megabytes"] for run in runs))


def _memories(own: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    return f"{_memory(own):,.0f} MB, {_memory(theirs):,.0f} MB"


def _mean_return(runs: list[dict[str, Any]]) -> str:
    known = [run["return_mean"] for run in runs if run["return_mean"] is not None]
    return f"{sum(known) / len(known):.0f}" if known else ""


def _repeats(results: dict[str, Any]) -> int:
    return max(run["seed"] for name, runs in results["measurements"].items() if name != "goal" for run in runs)
