"""The learning curve of one run."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from ppo_lab.notebook.plots.canvas import (
    BLUE,
    TEXT,
    Columns,
    blank,
    column,
    finite,
    marker,
    number,
    steps_axis,
    title,
)


def learning_curve(columns: Columns, ax: Axes, total_timesteps: int | None = None) -> None:
    """Mean return of the last 100 episodes over env steps, with a band of one standard deviation.

    columns: "global_step", "episode/return_mean", "episode/return_std", each (updates,); absent ones are no data.
    total_timesteps: the x axis ends there, so that the picture shows how far the run has come.
    """
    blank(ax)
    step, mean, std = (column(columns, name) for name in ("global_step", "episode/return_mean", "episode/return_std"))
    steps_axis(ax, step, total_timesteps)
    ax.set_ylabel("return", color=TEXT, fontsize=8)
    rows = finite(step, mean)  # (points,)
    if not rows.size:
        ax.yaxis.set_major_locator(NullLocator())
        return title(ax, "No episode has ended yet", TEXT)
    step, mean, std = step[rows], mean[rows], std[rows]
    ax.yaxis.set_major_locator(MaxNLocator(7))
    ax.fill_between(step, mean - std, mean + std, color=BLUE, alpha=0.18, linewidth=0, label="± 1 std")
    ax.plot(step, mean, color=BLUE, linewidth=1.8, marker=marker(step), label="mean of the last 100 episodes")
    ax.legend(loc="upper left", fontsize=8, frameon=False, labelcolor=TEXT)
    low, high = float(np.nanmin(mean - np.nan_to_num(std))), float(np.nanmax(mean + np.nan_to_num(std)))
    room = (high - low) or abs(high) or 1.0
    ax.set_ylim(low - 0.05 * room, high + 0.22 * room)  # the legend stands above the curve
    return title(ax, f"Return {number(mean[-1], digits=3)} ± {number(std[-1])}", TEXT)
