"""Pictures of lateral control, from arrays: a drive beside the road, and what the drives of a set of segments cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ppo_lab.notebook.plots.canvas import COLORS, DASHES, TEXT, label, number, panels, short

STEP_SECONDS, DRIVEN = 0.1, slice(100, 500)  # rows that the controller steers, as the challenge has them
BARS = 24


def drive_figure(target: Any, lataccel: Mapping[str, Any], steering: Mapping[str, Any], segment: str = "") -> Figure:
    """One segment: target and actual lateral acceleration of some controllers, and below how they steered.

    target: (T,) m/s^2. lataccel, steering: name -> (T,), the controller first. T is 500 or more; rows 100 to 499 are
    shown, which are those that count.
    """
    figure, (above, below) = panels(2, 1, height=4.2, sharex=True)
    seconds = np.arange(DRIVEN.start, DRIVEN.stop) * STEP_SECONDS
    wanted = np.asarray(target, dtype=float)[DRIVEN]
    above.plot(seconds, wanted, color=TEXT, linewidth=2.6, alpha=0.55, label="target")
    off = []
    for (name, actual), color, dashes in zip(lataccel.items(), COLORS, DASHES, strict=False):
        shown, commands = (np.asarray(rows, dtype=float)[DRIVEN] for rows in (actual, steering[name]))
        above.plot(seconds, shown, color=color, linestyle=dashes, linewidth=1.2, label=short(name))
        below.plot(seconds, commands, color=color, linestyle=dashes, linewidth=1.2)
        off.append(f"{short(name)} {number(float(np.sqrt(((wanted - shown) ** 2).mean())))}")
    _legend(above)
    place = f"{short(segment)}: " if segment else ""
    label(above, f"{place}off the target by (rms, m/s²) {', '.join(off)}", "", "lateral acceleration (m/s²)")
    label(below, "How they steered", "time (s)", "steering command (±2)")
    below.set_xlim(seconds[0], seconds[-1])
    figure.align_ylabels([above, below])
    return figure


def costs_figure(totals: Mapping[str, Any], cost_name: str = "total_cost") -> Figure:
    """Costs of two controllers on the same segments: name -> (segments,), the one in question first.

    Left their histograms over a logarithmic axis, since a few segments cost many times the median; right each segment
    as a dot, below the line where the first one costs less.
    """
    (name, mine), (other, its) = ((short(key), np.asarray(costs, dtype=float)) for key, costs in totals.items())
    figure, (left, right) = panels(1, 2, height=3.2)
    low, high = min(mine.min(), its.min()), max(mine.max(), its.max())
    edges = np.geomspace(low / 1.05, high * 1.05, BARS + 1)
    for costs, who, color, filled in ((mine, name, COLORS[0], True), (its, other, COLORS[1], False)):
        kind: dict[str, Any] = (
            {"histtype": "stepfilled", "alpha": 0.55} if filled else {"histtype": "step", "linewidth": 1.8}
        )
        left.hist(costs, bins=edges.tolist(), color=color, label=f"{who}: {number(float(costs.mean()), 3)}", **kind)
    legend = left.legend(title="mean", loc="upper right", fontsize=8, title_fontsize=8, frameon=False, labelcolor=TEXT)
    legend.get_title().set_color(TEXT)
    left.set_ylim(top=1.35 * left.get_ylim()[1])  # room for the legend
    medians = f"{number(float(np.median(mine)), 3)} and {number(float(np.median(its)), 3)}"
    label(left, f"Half of the segments cost less than {medians}", cost_name, "segments")
    right.plot(its, mine, color=COLORS[0], marker="o", markersize=3.5, markeredgewidth=0, alpha=0.6, linestyle="none")
    right.plot(edges[[0, -1]], edges[[0, -1]], color=TEXT, linewidth=1.0, linestyle=":")
    lower = int((mine < its).sum())
    label(right, f"{name} costs less on {lower} of {len(mine)}", f"{cost_name} of {other}", f"{cost_name} of {name}")
    right.set_yscale("log")
    for axis in (left.xaxis, right.xaxis, right.yaxis):
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 3)))
        axis.set_minor_formatter(NullFormatter())
    return figure


def _legend(ax: Axes) -> None:
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False, labelcolor=TEXT)
