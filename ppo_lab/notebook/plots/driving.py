"""Plots of lateral control: one drive compared with its target, and the costs of a set of segments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ppo_lab.notebook.plots.canvas import COLORS, DASHES, TEXT, label, number, numbers, panels, short

STEP_SECONDS, DRIVEN = 0.1, slice(100, 500)  # the rows that the controller steers in the challenge
MOST_BARS = 24
NARROW = 4.0  # costs that differ by a smaller factor have a linear axis


def drive_figure(target: Any, lataccel: Mapping[str, Any], steering: Mapping[str, Any], segment: str = "") -> Figure:
    """Draw one segment: target and actual lateral acceleration of several controllers, and their steering below.

    target: (T,) m/s^2. lataccel, steering: name -> (T,), the controller first. T >= 500; rows 100 to 499, which are
    scored, are shown.
    """
    figure, (above, below) = panels(2, 1, height=4.2, sharex=True)
    seconds = np.arange(DRIVEN.start, DRIVEN.stop) * STEP_SECONDS
    wanted = np.asarray(target, dtype=float)[DRIVEN]
    above.plot(seconds, wanted, color=TEXT, linewidth=2.6, alpha=0.55, label="target")
    off, moves = [], []
    for (name, actual), color, dashes in zip(lataccel.items(), COLORS, DASHES, strict=False):
        shown, commands = (np.asarray(rows, dtype=float)[DRIVEN] for rows in (actual, steering[name]))
        above.plot(seconds, shown, color=color, linestyle=dashes, linewidth=1.2, label=short(name))
        below.plot(seconds, commands, color=color, linestyle=dashes, linewidth=1.2)
        off.append(f"{short(name)} {number(_rms(wanted - shown))}")
        moves.append(f"{short(name)} {number(_rms(np.diff(commands)))}")
    _legend(above)
    place = f"{short(segment)}: " if segment else ""
    label(above, f"{place}error (rms, m/s²): {', '.join(off)}", "", "lateral acceleration (m/s²)")
    label(below, f"Steering change per step (rms): {', '.join(moves)}", "time (s)", "steering command (±2)")
    below.set_xlim(seconds[0], seconds[-1])
    figure.align_ylabels([above, below])
    return figure


def costs_figure(totals: Mapping[str, Any], cost_name: str = "total_cost") -> Figure:
    """Draw the costs of two controllers on the same segments. totals: name -> (segments,), the evaluated one first.

    Left: histograms, on a logarithmic axis if the costs differ by more than NARROW, since a few segments cost many
    times the median. Right: a dot per segment, below the line where the first controller costs less.
    """
    (name, mine), (other, its) = ((short(key), np.asarray(costs, dtype=float)) for key, costs in totals.items())
    figure, (left, right) = panels(1, 2, height=3.2)
    low, high = max(min(mine.min(), its.min()), 1e-3), max(mine.max(), its.max(), 1e-3)
    edges = np.geomspace(low / 1.05, high * 1.05, min(MOST_BARS, 6 + len(mine) // 5) + 1)
    for costs, who, color, shade in ((mine, name, COLORS[0], True), (its, other, COLORS[1], False)):
        left.hist(
            costs, bins=edges.tolist(), color=color, label=f"{who}: {number(float(costs.mean()), 3)}",
            histtype="stepfilled" if shade else "step", alpha=0.55 if shade else 1.0, linewidth=0.0 if shade else 1.8,
        )  # fmt: skip
    legend = left.legend(title="mean", loc="upper right", fontsize=8, title_fontsize=8, frameon=False, labelcolor=TEXT)
    legend.get_title().set_color(TEXT)
    left.set_ylim(top=1.35 * left.get_ylim()[1])  # room for the legend
    medians = f"{name} {number(float(np.median(mine)), 3)}, {other} {number(float(np.median(its)), 3)}"
    label(left, f"Median: {medians}", cost_name, "segments")
    right.plot(its, mine, color=COLORS[0], marker="o", markersize=3.5, markeredgewidth=0, alpha=0.6, linestyle="none")
    right.plot(edges[[0, -1]], edges[[0, -1]], color=TEXT, linewidth=1.0, linestyle=":")
    lower = int((mine < its).sum())
    label(
        right,
        f"{name} costs less on {lower} of {len(mine)} segments",
        f"{cost_name} of {other}",
        f"{cost_name} of {name}",
    )
    for ax, axis in ((left, left.xaxis), (right, right.xaxis), (right, right.yaxis)):
        numbers(axis)
        if high > NARROW * low:
            ax.set(**{f"{axis.axis_name}scale": "log"})
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 3)))
            axis.set_minor_formatter(NullFormatter())
    return figure


def _legend(ax: Axes) -> None:
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False, labelcolor=TEXT)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))
