"""The dials: diagnostics of the update beside the range they have in a healthy run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from ppo_lab.notebook.plots.canvas import (
    BLUE,
    GREEN,
    TEXT,
    VERMILLION,
    Columns,
    blank,
    column,
    finite,
    marker,
    number,
    steps_axis,
    title,
)
from ppo_lab.notebook.plots.learning import learning_curve


class Dial(NamedTuple):
    """A diagnostic of the update, the range it has in a healthy run, and what it says."""

    name: str
    unit: str
    low: float  # healthy from here
    high: float  # to here
    below: str
    inside: str
    above: str
    reason: str
    floor: float = -math.inf  # values below are drawn here: one bad update would flatten all others


# Rules of thumb, not laws: a run may learn well outside of them, but then it is worth a look.
HEALTHY = {
    "update/approx_kl": Dial(
        "KL", "nats", 0.0, 0.02, "no change", "small steps", "big steps",
        "PPO implementations aim at or warn above 0.01 to 0.02 (Spinning Up's target_kl is 0.01, stop at 1.5 x)",
    ),
    "update/clip_fraction": Dial(
        "Clipped", "share of samples", 0.0, 0.2, "no change", "leash mostly slack", "leash often tight",
        "above a fifth, much of the data has no gradient left: the policy outran what it was measured with",
    ),
    "loss/entropy": Dial(
        "Entropy", "nats", math.nan, math.nan, "hardly explores", "still explores", "no preference yet",
        "log(n) is the coin toss among n actions; below 5 % of it there is next to no exploration. "
        "No such range exists for continuous actions",
    ),
    "update/explained_variance": Dial(
        "Explained var.", "1 is perfect", 0.5, 1.0, "critic guesses", "critic predicts", "",
        "1 - Var(returns - V) / Var(returns): 0 is no better than always the mean; above 0.5 advantages mean something",
        floor=-1.0,
    ),
}  # fmt: skip


def dials(
    columns: Columns,
    axes: Sequence[Axes],
    total_timesteps: int | None = None,
    entropy_range: tuple[float, float] | None = None,
) -> None:
    """KL, clip fraction, entropy and explained variance, one on each of four axes, their healthy range shaded.

    entropy_range: see `entropy_range`; None shades nothing. The title says where the newest values lie.
    """
    for (name, dial), ax in zip(HEALTHY.items(), axes, strict=True):
        if name == "loss/entropy" and entropy_range is not None:
            dial = dial._replace(low=entropy_range[0], high=entropy_range[1])
        _dial(name, dial, columns, ax, total_timesteps)


def entropy_range(num_actions: int | None) -> tuple[float, float] | None:
    """Healthy entropies of a choice among `num_actions`, in nats; None where actions are continuous."""
    if num_actions is None or num_actions < 2:
        return None
    most = math.log(num_actions)
    return 0.05 * most, most


def dashboard_figure(
    columns: Columns,
    total_timesteps: int | None = None,
    num_actions: int | None = None,
    figure: Figure | None = None,
) -> Figure:
    """The learning curve and the four dials in one picture.

    figure: one that this function returned earlier, to draw anew: most of a frame's time goes into making axes.
    """
    figure = figure if figure is not None else _five_axes()
    curve, *four = figure.axes
    learning_curve(columns, curve, total_timesteps)
    dials(columns, four, total_timesteps, entropy_range(num_actions))
    for ax in four[:2]:
        ax.set_xlabel("")  # the one below has it
    return figure


def _five_axes() -> Figure:
    figure = Figure(figsize=(10.0, 4.2), facecolor="none")
    FigureCanvasAgg(figure)
    # fixed margins: letting matplotlib find them doubles the time of a frame
    grid = figure.add_gridspec(
        2, 3, width_ratios=(1.55, 1, 1), left=0.07, right=0.985, top=0.93, bottom=0.115, hspace=0.5, wspace=0.42
    )
    for place in (grid[:, 0], grid[0, 1], grid[0, 2], grid[1, 1], grid[1, 2]):
        figure.add_subplot(place)
    return figure


def _dial(name: str, dial: Dial, columns: Columns, ax: Axes, total_timesteps: int | None) -> None:
    blank(ax)
    step, value = column(columns, "global_step"), column(columns, name)
    steps_axis(ax, step, total_timesteps)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, digits=3)))
    ax.set_ylabel(dial.unit, color=TEXT, fontsize=8)
    rows = finite(step, value)  # (points,)
    if not rows.size:
        ax.yaxis.set_major_locator(NullLocator())
        return title(ax, f"{dial.name}: nothing yet", TEXT)
    step, value = step[rows], value[rows]
    ax.yaxis.set_major_locator(MaxNLocator(4))
    if not math.isnan(dial.low):
        ax.axhspan(dial.low, dial.high, color=GREEN, alpha=0.16, linewidth=0)
    shown = value.clip(min=dial.floor)
    ax.plot(step, shown, color=BLUE, linewidth=1.3, marker=marker(step))
    _limits(ax, shown, dial)
    now = float(np.median(value[-5:]))  # the title is read, so it may not flicker
    message = dial.above if now > dial.high else dial.below if now < dial.low else dial.inside
    healthy = not now > dial.high and not now < dial.low
    text = f"{dial.name} {number(now)}" + (f": {message}" if message and not math.isnan(dial.low) else "")
    return title(ax, text, TEXT if healthy else VERMILLION)


def _limits(ax: Axes, shown: np.ndarray, dial: Dial) -> None:
    """Room for the data and for the healthy range."""
    low, high = float(shown.min()), float(shown.max())
    if not math.isnan(dial.low):
        low, high = min(low, dial.low), max(high, dial.high)
    room = (high - low) or abs(high) or 1.0
    ax.set_ylim(low - 0.05 * room, high + 0.08 * room)
