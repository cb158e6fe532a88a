"""What the presets learned, as text: the table of results, and the one that sets published figures beside them."""

from __future__ import annotations

from statistics import median
from typing import Any

from published import PUBLISHED, USUAL_STEPS, Figure
from tables import cpu, machine_line, markdown, spread, wall

SAME_BUDGET = 0.05  # steps that differ by less count as the same

LEARNING = """\
## What the presets learn

    python benchmarks/learning.py                  those that take minutes
    python benchmarks/learning.py --all --runs benchmark-runs

Every seed trains to the end of its budget and is then judged on {episodes} fresh episodes, in an environment made as
for training, wrappers included (`cartpole` trains in ours and is judged in Gymnasium's), by the raw returns of whole
games. Actions are the most likely ones; "drawn" ones are usual on Atari and MiniGrid. IQM is the interquartile mean
over seeds of their means, with its 95 % bootstrap interval. "Reached" counts the seeds whose last 100 episodes of
training had the threshold as their mean at some time; "steps to it" says when (median, latest). Seconds are of
training, {processes} seeds at a time, median (lowest to highest); CPU seconds do not count waiting for a core.

{table}
{short}{beside}
{machine}
"""

BESIDE = """
### Beside published figures

Theirs as published, not run again here. "Budget" is theirs against ours in env steps. Where versions of the
environment, numbers of seeds or ways of judging differ, a few per cent between two rows say nothing.

{table}
"""


def learning_table(results: dict[str, Any]) -> str:
    """What every preset learned."""
    heads = ["preset", "judged on", "actions", "steps", "seeds", "IQM (95 % interval)", "worst seed", "threshold"]
    heads += ["reached", "steps to it", "seconds", "CPU seconds"]
    return markdown(heads, [_learned(preset, entry) for preset, entry in results.items()])


def beside_table(results: dict[str, Any]) -> str:
    """A row for each published figure of the presets there are results for; "" if there is none."""
    rows = []
    for preset, entry in results.items():
        steps, name = _steps(entry), preset
        ours = f"{_number(entry['summary']['iqm'])} ({_seeds(entry)}, {_short_steps(steps)} steps)"
        for figure in PUBLISHED.get(preset, ()):
            row = [name, ours, figure.score, figure.source, _short_steps(figure.steps), budget(figure, steps)]
            rows.append([*row, figure.remark])
            name = ours = ""
    return markdown(["preset", "ours", "theirs", "source", "steps", "budget", "theirs differ in"], rows) if rows else ""


def learning_part(results: dict[str, Any]) -> str:
    """The whole part of README.md."""
    machines = dict.fromkeys(machine_line(entry["made_with"]) for entry in results.values())
    at_a_time = sorted({run["processes"] for entry in results.values() for run in entry["runs"]})
    episodes = sorted({entry["made_with"]["task"]["episodes"] for entry in results.values()})
    short = [text for preset, entry in results.items() if (text := short_label(preset, _steps(entry)))]
    beside = beside_table(results)
    return LEARNING.format(
        episodes=" or ".join(map(str, episodes)),
        processes=" or ".join(map(str, at_a_time)),
        table=learning_table(results),
        short="".join(f"\n{text}\n" for text in short),
        beside=BESIDE.format(table=beside) if beside else "",
        machine="\n".join(machines),
    )


def budget(figure: Figure, steps: int) -> str:
    """Their env steps against ours."""
    times = figure.steps / steps
    return "same" if abs(times - 1.0) <= SAME_BUDGET else f"{times:.2g} x ours"


def short_label(preset: str, steps: int) -> str:
    """What has to be said of a run with less than the usual budget; "" otherwise."""
    usual = USUAL_STEPS.get(preset, 0)
    if steps >= (1.0 - SAME_BUDGET) * usual:
        return ""
    return f"`{preset}` is a short run: {_short_steps(steps)} of the usual {_short_steps(usual)} steps."


def _learned(preset: str, entry: dict[str, Any]) -> list[str]:
    runs, low_high, task = entry["runs"], entry["summary"]["interval"], entry["made_with"]["task"]
    at = sorted(run["reached_at"] for run in runs if run["reached_at"] is not None)
    interval = "" if None in low_high else f" ({_number(low_high[0])} to {_number(low_high[1])})"
    steps, threshold = _steps(entry), task["threshold"]
    row = [preset + (" (short run)" if short_label(preset, steps) else "")]
    row += [f"`{task['judged_on'] or entry['made_with']['config']['env']['id']}`"]
    row += ["most likely" if task["deterministic"] else "drawn", f"{steps:,}", f"{len(runs)}"]
    row += [f"{_number(entry['summary']['iqm'])}{interval}", _number(min(run["evaluation_mean"] for run in runs))]
    if threshold is None:
        row += ["-", "-", "-"]
    else:
        row += [f"{threshold:g}", f"{len(at)} of {len(runs)}", f"{median(at):,.0f}, {at[-1]:,}" if at else "-"]
    return [*row, spread([wall(run) for run in runs], ",.0f"), spread([cpu(run) for run in runs], ",.0f")]


def _steps(entry: dict[str, Any]) -> int:
    return max(int(run["steps"]) for run in entry["runs"])


def _seeds(entry: dict[str, Any]) -> str:
    count = len(entry["runs"])
    return f"{count} seed{'s' if count > 1 else ''}"


def _number(score: float) -> str:
    """A digit after the point; three where returns are shares of 1."""
    return f"{score:.1f}" if abs(score) >= 2 else f"{score:.3f}"


def _short_steps(steps: int) -> str:
    """1,003,520 as 1M, 151,552 as 152k."""
    return f"{steps / 1e6:.3g}M" if steps >= 999_500 else f"{steps / 1e3:.3g}k"
