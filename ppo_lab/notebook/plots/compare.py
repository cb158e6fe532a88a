"""Plots that compare runs: one curve per run or per group of seeds (mean and interval), and the tree of forks."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ppo_lab.errors import ConfigError
from ppo_lab.evaluation.statistics import mean_interval
from ppo_lab.notebook.data import run_groups
from ppo_lab.notebook.plots.canvas import (
    COLORS,
    DASHES,
    MOST_NOTES,
    TEXT,
    Columns,
    JournalLine,
    legend,
    mark,
    marker,
    own,
    points,
    setting,
    steps_axis,
    style,
    to_png,
)
from ppo_lab.notebook.plots.runs import plot_lineage
from ppo_lab.runs.table import summarize

GRID = 100  # maximum number of points of a mean curve: each needs a bootstrap
MOST_CURVES = len(COLORS) * len(DASHES)  # as many as there are combinations
LONGEST_LINE = 44
YLABELS = {
    "episode/return_mean": "return",
    "episode/length_mean": "episode length (env steps)",
    "loss/entropy": "entropy (nats)",
    "update/approx_kl": "approx. KL (nats)",
    "time/steps_per_second": "env steps per second",
}


class Picture(Figure):
    """A figure that a notebook displays without pyplot."""

    alt = ""  # alternative text for screen readers

    def _repr_png_(self) -> tuple[str, dict[str, str]]:
        return b64encode(to_png(self)).decode("ascii"), {"alt": self.alt}


class Band(NamedTuple):
    """The mean over seeds at some env steps, and its 95 % interval, (points,) each."""

    step: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def compare(
    runs: run_groups.Runs = "runs",
    metric: str = "episode/return_mean",
    root: str | Path = "runs",
    ylabel: str | None = None,
) -> Figure:
    """Draw one metric of several runs over env steps; the seeds of one experiment become one curve with a band.

    runs: a folder of runs, or several runs, each given as its folder, its name in `root`, or its line of `list_runs`.

    Runs are seeds of one experiment if their settings differ only in `run.*`, their seeds differ, the same live changes
    were made, and they are not forks (or are forks of the same checkpoint). The curve is the mean over the seeds, up to
    the step that all of them have reached. The band is a 95 % interval of this mean, computed separately at every step
    with the percentile bootstrap of `ppo_lab.statistics.mean_interval`. It shows the uncertainty of the mean, not the
    spread of single runs. With 3 seeds it covers only 75 %; use 5 or more. Live changes are numbered triangles.

    Raises RunError for runs that do not exist, cannot be read, or have all recorded nothing; ConfigError for a metric
    that no run has, or for more curves than can be distinguished.
    """
    found = run_groups.read_runs(runs, root)
    run_groups.check_metric(found, metric)
    groups = run_groups.groups(found, metric)
    if len(groups) > MOST_CURVES:
        raise ConfigError(f"{len(groups)} curves are too many to tell apart: pass at most {MOST_CURVES} runs or groups")
    metrics = {group.label: [run.metrics for run in group.runs] for group in groups}
    changes = {group.label: group.runs[0].journal for group in groups}
    lines = sum(group.label.count("\n") + 1 for group in groups)
    notes = min(sum(len(group.runs[0].journal) for group in groups), MOST_NOTES + 1)
    figure, ax = _picture(max(10, lines + notes + 2))
    plot_seeds(metrics, ax, changes, metric, ylabel or YLABELS.get(metric, metric))
    figure.alt = f"{metric} over env steps of {', '.join(' '.join(group.label.split()) for group in groups)}"
    return figure


def lineage(runs: run_groups.Runs = "runs", root: str | Path = "runs") -> Figure:
    """Draw the tree of runs over env steps (`plot_lineage`). runs, root: as in `compare`. Raises RunError."""
    summaries = [summarize(folder) for folder in run_groups.find_runs(runs, root)]
    figure, ax = _picture(len(summaries))
    plot_lineage(summaries, ax)
    figure.alt = "the tree of runs over env steps"
    return figure


def plot_seeds(
    columns_by_label: Mapping[str, Sequence[Columns]],
    ax: Axes,
    changes_by_label: Mapping[str, Sequence[JournalLine]] | None = None,
    metric: str = "episode/return_mean",
    ylabel: str = "return",
) -> None:
    """Draw one curve per label: its run, or the mean of its seeds with a 95 % interval (`seed_band`).

    columns_by_label: label -> the metrics of each seed, arrays (updates,). changes_by_label: label -> the live changes,
    which are the same in all seeds of a label.
    """
    style(ax)
    ax.set_ylabel(ylabel, color=TEXT, fontsize=8)
    notes: list[tuple[Any, str]] = []  # a handle of the legend and its text
    ends, count, bands = [0.0], 0, False
    for i, (label, seeds) in enumerate(columns_by_label.items()):
        color, dashes = COLORS[i % len(COLORS)], DASHES[i % len(DASHES)]
        if len(seeds) > 1:
            step, value, low, high = seed_band(seeds, metric)
            ax.fill_between(step, low, high, color=color, alpha=0.25, linewidth=0, zorder=1)
            bands = bands or len(step) > 0
        else:
            step, value = points(seeds[0], metric)
        (line,) = ax.plot(step, value, color=color, linestyle=dashes, linewidth=1.8, marker=marker(step), zorder=2)
        notes.append((line, _fitted(label) if len(step) else f"{_fitted(label)}: nothing yet"))
        changes = own(seeds[0], (changes_by_label or {}).get(label, ()))
        for change in changes:
            count += 1
            triangle = mark(ax, change.global_step, str(count), color, step, value)
            if count <= MOST_NOTES:
                notes.append((triangle, f"{count}  {change.key} {setting(change.old)} → {setting(change.new)}"))
            elif count == MOST_NOTES + 1:
                notes.append((triangle, "more changes: see the journal"))
        ends += [*step[-1:], *(change.global_step for change in changes)]
    if bands:
        notes.append((Patch(color=TEXT, alpha=0.3, linewidth=0), "95 % interval of the mean over seeds"))
    steps_axis(ax, np.array([1.02 * max(ends)]), None)  # room for the marker at the end
    ax.yaxis.set_major_locator(MaxNLocator(7))
    ax.margins(y=0.12)
    if max(ends) == 0.0:
        ax.set_title("Nothing to draw yet", loc="left", color=TEXT, fontsize=9)
    if notes:
        legend(ax, notes)


def seed_band(seeds: Sequence[Columns], metric: str) -> Band:
    """Return the mean over seeds and its 95 % interval (`mean_interval`), in the range where all seeds have values.

    The steps are those at which any seed has a value, at most GRID of them. The values of a seed are interpolated
    linearly between its own steps. Empty arrays if a seed has no values.
    """
    curves = [points(columns, metric) for columns in seeds]
    empty = np.empty(0)
    if not curves or any(not len(step) for step, _ in curves):
        return Band(empty, empty, empty, empty)
    begin, end = max(step[0] for step, _ in curves), min(step[-1] for step, _ in curves)
    grid = np.unique(np.concatenate([step for step, _ in curves]))
    grid = grid[(begin <= grid) & (grid <= end)]
    if len(grid) > GRID:
        grid = grid[np.linspace(0, len(grid) - 1, GRID).round().astype(int)]
    values = np.array([np.interp(grid, step, value) for step, value in curves])  # (seeds, points)
    intervals = np.array([mean_interval(column) for column in values.T]).reshape(-1, 2)  # (points, 2)
    return Band(grid, values.mean(axis=0), intervals[:, 0], intervals[:, 1])


def _picture(rows: float) -> tuple[Picture, Axes]:
    """Create a picture with room for `rows` runs of a tree or lines of a legend."""
    figure = Picture(figsize=(9.0, 0.9 + 0.26 * max(rows, 3.0)), facecolor="none", layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _fitted(label: str) -> str:
    """Cut the lines of a label to LONGEST_LINE characters, and escape $, which starts a formula."""
    lines = [line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…" for line in label.split("\n")]
    return "\n".join(lines).replace("$", r"\$")
