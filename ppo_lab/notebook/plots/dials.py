"""The dials: diagnostics of the update over env steps, with the range of a healthy run where there is one."""

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
    marker,
    number,
    points,
    steps_axis,
    title,
)
from ppo_lab.notebook.plots.learning import learning_curve


class Dial(NamedTuple):
    """A diagnostic of the update, its range in a healthy run, and the words for values below, inside and above it."""

    name: str
    unit: str
    low: float  # healthy from here
    high: float  # up to here
    below: str
    inside: str
    above: str
    reason: str
    floor: float = -math.inf  # smaller values are drawn here, so that one bad update does not flatten the curve


# Rules of thumb: a run may learn well outside these ranges, but then it is worth checking.
HEALTHY = {
    "update/approx_kl": Dial(
        "KL", "nats", 0.0, 0.02, "no change", "small steps", "big steps",
        "PPO implementations aim at or warn above 0.01 to 0.02 (Spinning Up's target_kl is 0.01, stop at 1.5 x)",
    ),
    "update/clip_fraction": Dial(
        "Clipped", "share of samples", 0.0, 0.2, "no change", "small share", "large share",
        "above 0.2, many samples have no gradient left: the policy has moved too far from the one that acted",
    ),
    "loss/entropy": Dial(
        "Entropy", "nats", math.nan, math.nan, "hardly explores", "still explores", "no preference yet",
        "log(n) is the entropy of n equally likely actions; below 5 % of it there is almost no exploration. "
        "Continuous actions have no such range",
    ),
    "update/explained_variance": Dial(
        "Explained var.", "1 is perfect", 0.5, 1.0, "critic guesses", "critic predicts", "",
        "1 - Var(returns - V) / Var(returns): 0 is no better than a constant; above 0.5 advantages are useful",
        floor=-1.0,
    ),
}  # fmt: skip


# No value of these is good or bad in itself; `_trend` describes the direction.
MORE = {
    "update/grad_norm": Dial(
        "Gradient norm", "before clipping", math.nan, math.nan, "", "", "",
        "mean over the gradient steps of an update; gradients above max_grad_norm are scaled down, which is harmless",
        floor=0.0,
    ),
    "loss/policy": Dial(
        "Policy loss", "surrogate", math.nan, math.nan, "", "says little", "",
        "it starts near 0 in every update: falling values do not mean progress, rising ones do not mean decline",
    ),
    "loss/value": Dial(
        "Value loss", "squared error", math.nan, math.nan, "", "", "",
        "it has the scale of squared returns and grows with them; explained variance measures the critic's quality",
    ),
    "update/learning_rate": Dial(
        "Learning rate", "in force", math.nan, math.nan, "", "", "",
        "includes the schedule and live changes",
    ),
}  # fmt: skip


def dials(
    columns: Columns,
    axes: Sequence[Axes],
    total_timesteps: int | None = None,
    entropy_range: tuple[float, float] | None = None,
    target_kl: float | None = None,
    desired_kl: float | None = None,
) -> None:
    """Draw KL, clip fraction, entropy and explained variance on four axes, with their healthy ranges shaded.

    Each title compares the newest values with the range.
    entropy_range: see the function `entropy_range`; None: no range for the entropy.
    target_kl: the range of KL ends at 1.5 x this.
    desired_kl: of an adaptive learning rate; the range of KL ends at 2 x this, if that is higher.
    """
    for (name, dial), ax in zip(HEALTHY.items(), axes, strict=True):
        if name == "loss/entropy" and entropy_range is not None:
            dial = dial._replace(low=entropy_range[0], high=entropy_range[1])
        if name == "update/approx_kl" and target_kl is not None:
            dial = dial._replace(high=1.5 * target_kl)
        if name == "update/approx_kl" and desired_kl is not None:
            dial = dial._replace(high=max(dial.high, 2.0 * desired_kl))
        _dial(name, dial, columns, ax, total_timesteps)


def entropy_range(num_actions: int | None) -> tuple[float, float] | None:
    """Return the healthy range of entropy for `num_actions` choices, in nats; None for continuous actions."""
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
    """Draw the learning curve and the four dials in one picture.

    figure: an earlier result of this function to redraw; creating axes takes most of a frame's time.
    """
    figure = figure if figure is not None else _five_axes()
    curve, *four = figure.axes
    learning_curve(columns, curve, total_timesteps)
    dials(columns, four, total_timesteps, entropy_range(num_actions))
    for ax in four[:2]:
        ax.set_xlabel("")  # the panel below has it
    return figure


def dials_figure(
    columns: Columns,
    total_timesteps: int | None = None,
    num_actions: int | None = None,
    target_kl: float | None = None,
    max_grad_norm: float | None = None,
    figure: Figure | None = None,
    desired_kl: float | None = None,
) -> Figure:
    """Draw eight dials: KL, clip fraction, entropy, explained variance; gradient norm, the two losses, learning rate.

    target_kl, desired_kl: see `dials`. max_grad_norm: the limit of the gradient norm, drawn as a line.
    figure: an earlier result of this function to redraw.
    """
    figure = figure if figure is not None else _eight_axes()
    upper, lower = figure.axes[:4], figure.axes[4:]
    dials(columns, upper, total_timesteps, entropy_range(num_actions), target_kl, desired_kl)
    for (name, dial), ax in zip(MORE.items(), lower, strict=True):
        if name == "update/grad_norm" and max_grad_norm is not None:
            dial = dial._replace(below=f"below {number(max_grad_norm)}", above=f"cut to {number(max_grad_norm)}")
            _dial(name, dial, columns, ax, total_timesteps, line=max_grad_norm)
        else:
            _dial(name, dial, columns, ax, total_timesteps)
    for ax in upper:
        ax.set_xlabel("")  # the panel below has the label and the numbers
        ax.tick_params(labelbottom=False)
    return figure


def _eight_axes() -> Figure:
    figure = Figure(figsize=(10.0, 4.2), facecolor="none")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 4, left=0.067, right=0.988, top=0.935, bottom=0.115, hspace=0.3, wspace=0.42)
    for i in range(8):
        figure.add_subplot(grid[i // 4, i % 4])
    return figure


def _five_axes() -> Figure:
    figure = Figure(figsize=(10.0, 4.2), facecolor="none")
    FigureCanvasAgg(figure)
    # fixed margins: computing them in matplotlib doubles the time of a frame
    grid = figure.add_gridspec(
        2, 3, width_ratios=(1.55, 1, 1), left=0.07, right=0.985, top=0.93, bottom=0.115, hspace=0.5, wspace=0.42
    )
    for place in (grid[:, 0], grid[0, 1], grid[0, 2], grid[1, 1], grid[1, 2]):
        figure.add_subplot(place)
    return figure


def _dial(
    name: str, dial: Dial, columns: Columns, ax: Axes, total_timesteps: int | None, line: float = math.nan
) -> None:
    """Draw one dial. line: a limit to draw, with different words below and above it; NaN: none."""
    blank(ax)
    steps_axis(ax, column(columns, "global_step"), total_timesteps)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, digits=3)))
    ax.set_ylabel(dial.unit, color=TEXT, fontsize=8)
    step, value = points(columns, name)
    if not len(step):
        ax.yaxis.set_major_locator(NullLocator())
        return title(ax, f"{dial.name}: nothing yet")
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ranged = not math.isnan(dial.low)
    if ranged:
        ax.axhspan(dial.low, dial.high, color=GREEN, alpha=0.16, linewidth=0)
    if not math.isnan(line):
        ax.axhline(line, color=TEXT, linewidth=1.2, linestyle="--", zorder=3)
    shown = value.clip(min=dial.floor)
    ax.plot(step, shown, color=BLUE, linewidth=1.3, marker=marker(step))
    _limits(ax, shown, dial, line)
    now = float(np.median(value[-5:]))  # the median of five, so that the title does not flicker
    healthy = not now > dial.high and not now < dial.low
    low, high = (dial.low, dial.high) if math.isnan(line) else (line, line)
    message = dial.above if now > high else dial.below if now < low else dial.inside
    if not ranged and math.isnan(line):
        message = "" if name == "loss/entropy" else message or _trend(value)
    return title(
        ax, f"{dial.name} {number(now)}" + (f": {message}" if message else ""), TEXT if healthy else VERMILLION
    )


def _trend(value: np.ndarray) -> str:
    """Compare the newest values with earlier ones: "rising", "falling" or "steady". value: (points,), not negative."""
    now, before = float(np.median(value[-5:])), float(np.median(value[-50:-5] if len(value) > 5 else value))
    if now > 1.25 * before:
        return "rising"
    return "falling" if now < 0.8 * before else "steady"


def _limits(ax: Axes, shown: np.ndarray, dial: Dial, line: float) -> None:
    """Set the y limits to contain the data and the healthy range; rare spikes may exceed them."""
    low, high = float(shown.min()), float(shown.max())
    most = 2.0 * max(float(np.quantile(shown, 0.95)), float(shown[-5:].max()))
    if 0.0 < most < high / 2.0:
        high = most
    if not math.isnan(dial.low):
        low, high = min(low, dial.low), max(high, dial.high)
    if not math.isnan(line):
        low, high = min(low, line), max(high, line)
    room = (high - low) or abs(high) or 1.0
    ax.set_ylim(low - 0.05 * room, high + 0.08 * room)
