"""A plot of metrics that ppo_lab does not compute itself: from info, from environments, from `trainer.record`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from ppo_lab.notebook.plots.canvas import (
    BLUE,
    TEXT,
    Columns,
    blank,
    column,
    marker,
    number,
    points,
    short,
    steps_axis,
    title,
)

MOST = 8  # in one picture
NONE = "No metrics of your own yet: env.info_metrics adds those in info, trainer.record({'probe/x': 0.3}) adds others"


def numbers_figure(
    columns: Columns, names: Sequence[str], total_timesteps: int | None = None, figure: Figure | None = None
) -> Figure:
    """Draw the named metrics over env steps, at most eight, each on its own axes.

    figure: an earlier result of this function to redraw; it is replaced if the number of axes differs.
    """
    shown = names[:MOST]
    if figure is None or len(figure.axes) != max(1, len(shown)) or not figure.axes[0].axison:
        figure = _axes(max(1, len(shown)))
    for name, ax in zip(shown, figure.axes, strict=False):
        _draw(name, columns, ax, total_timesteps)
    if not shown:
        blank(figure.axes[0])
        figure.axes[0].set_axis_off()  # the first metric creates new axes
        figure.axes[0].text(0.5, 0.5, NONE, color=TEXT, fontsize=9, ha="center", va="center", parse_math=False)
    for text in list(figure.texts):
        text.remove()
    if len(names) > MOST:
        rest = f"and {len(names) - MOST} more: session.history has them all"
        figure.text(0.988, 0.005, rest, color=TEXT, fontsize=8, ha="right", va="bottom")
    return figure


def _axes(count: int) -> Figure:
    figure = Figure(figsize=(10.0, 4.2), facecolor="none")
    FigureCanvasAgg(figure)
    rows = 1 if count < 4 else 2
    grid = figure.add_gridspec(
        rows, math.ceil(count / rows), left=0.067, right=0.988, top=0.935, bottom=0.115, hspace=0.42, wspace=0.3
    )
    for i in range(count):
        figure.add_subplot(grid[i])
    return figure


def _draw(name: str, columns: Columns, ax: Axes, total_timesteps: int | None) -> None:
    blank(ax)
    steps_axis(ax, column(columns, "global_step"), total_timesteps)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, digits=3)))
    step, value = points(columns, name)
    last = f": {number(float(value[-1]), digits=3)}" if len(value) else ""
    title(ax, f"{short(name)}{last}")
    if not len(value):
        ax.yaxis.set_major_locator(NullLocator())
        return
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.plot(step, value, color=BLUE, linewidth=1.3, marker=marker(step))
    low, high = float(np.min(value)), float(np.max(value))
    room = (high - low) or abs(high) or 1.0
    ax.set_ylim(low - 0.06 * room, high + 0.06 * room)
