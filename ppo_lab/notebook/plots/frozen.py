"""Plots of a single update: the rollout over environments and time, and the effect of each gradient step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from ppo_lab.notebook.plots.canvas import BLUE, TEXT, VERMILLION, number, style

if TYPE_CHECKING:
    from ppo_lab.notebook.data.frozen_rollout import SurrogateSteps

ON_BOTH = [withStroke(linewidth=3.2, foreground="white")]  # a black mark with a white rim is visible on any colour
BANDS = ((1, 99), (10, 90), (25, 75))  # percentiles


def rollout_figure(panels: Mapping[str, np.ndarray], terminated: np.ndarray, done: np.ndarray) -> Figure:
    """Draw T steps of N environments as an image per panel: one row per environment, with the ends of episodes marked.

    panels: title -> (T, N), NaN where there is no value. If there are negative values, they are vermillion, positive
    ones are blue, and 0 is transparent. terminated, done: (T, N) bool.
    """
    T, N = done.shape
    figure, axes = _figure(0.8 + 2.2 * len(panels), len(panels), 1, hspace=0.3)
    for ax, (name, values) in zip(axes, panels.items(), strict=True):
        colors, low, high = _colors(values)
        image = ax.imshow(
            values.T, cmap=colors, vmin=low, vmax=high, aspect="auto", interpolation="nearest",
            extent=(-0.5, T - 0.5, N - 0.5, -0.5),
        )  # fmt: skip  # (T, N) -> (N, T)
        ax.grid(visible=False)
        ax.set_ylabel("environment", color=TEXT, fontsize=8)
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        bar = figure.colorbar(image, ax=ax, fraction=0.03, pad=0.015)
        bar.ax.tick_params(colors=TEXT, labelsize=8)
        bar.ax.patch.set_alpha(0.0)
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(4)
        constant = np.nanmin(values) == np.nanmax(values)
        bar.ax.set_visible(not constant)
        _title(ax, f"{name}: {number(float(np.nanmax(values)))} everywhere" if constant else name)
        for kind, symbol, label in _ends(terminated, done):
            t, n = np.nonzero(kind)
            ax.plot(t, n, symbol, color="black", markersize=5.5, mew=1.5, fillstyle="none", path_effects=ON_BOTH)
            if ax is axes[0]:
                ax.plot([], [], symbol, color=TEXT, markersize=5.5, mew=1.5, fillstyle="none", label=label)
    axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8, frameon=False, labelcolor=TEXT)
    axes[-1].set_xlabel("step of the rollout", color=TEXT, fontsize=8)
    return figure


def course_figure(
    value: np.ndarray,
    returns: np.ndarray,
    advantage: np.ndarray,
    terminated: np.ndarray,
    done: np.ndarray,
    heading: str = "",
) -> Figure:
    """Draw one environment over T steps: values and returns as lines, advantages as bars; all arrays are (T,).

    The axis limits are rounded up, so that they do not change with every small move of a slider.
    """
    figure, (top, bottom) = _figure(3.3, 2, 1, hspace=0.12, sharex=True)
    t = np.arange(len(value))
    starts = np.flatnonzero(np.concatenate([[True], done[:-1]]))
    for line, color, label in (
        (value, TEXT, "value (forecast)"),
        (returns, BLUE, "returns (target)"),
    ):
        apart = np.insert(line.astype(float), starts[1:], np.nan)  # no line from one episode to the next
        top.plot(np.insert(t.astype(float), starts[1:], np.nan), apart, color=color, linewidth=1.6, label=label)
    top.set_ylabel("discounted reward", color=TEXT, fontsize=8)
    top.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8, frameon=False, labelcolor=TEXT)
    lowest, highest = min(returns.min(), value.min()), max(returns.max(), value.max())
    top.set_ylim(-_round_up(-lowest) if lowest < 0 else 0.0, _round_up(highest) if highest > 0 or lowest == 0 else 0.0)
    # wide lines instead of bars: drawing rectangles would take a third of a frame's time
    width = 0.75 * 580.0 / len(t)  # in points; the axes are 580 wide
    bottom.vlines(t, 0.0, advantage, colors=[VERMILLION if a < 0 else BLUE for a in advantage], linewidth=width)
    bottom.axhline(0, color=TEXT, linewidth=0.8)
    bottom.set_ylabel("advantage", color=TEXT, fontsize=8)
    limit = _round_up(float(np.abs(advantage).max()))
    bottom.set_ylim(-limit, limit)
    bottom.set_xlim(-0.7, len(t) - 0.3)
    bottom.set_xlabel("step of the rollout", color=TEXT, fontsize=8)
    for kind, _, label in _ends(terminated, done):
        for at in np.flatnonzero(kind) + 0.5:
            for ax in (top, bottom):
                ax.axvline(at, color=TEXT, linewidth=1.2, linestyle="-" if label == "terminated" else (0, (3, 2)))
            bottom.annotate(
                label, (at, -limit), xytext=(3, 3), textcoords="offset points", color=TEXT, fontsize=7, clip_on=True
            )
    _title(top, heading)
    return figure


def drift_figure(ratio: np.ndarray, clip_coef: float, steps_per_epoch: int) -> Figure:
    """Draw the distribution of the ratios of M samples after each gradient step: percentile bands and the clip range.

    ratio: (S + 1, M); row 0 is before the first step.
    """
    figure, (ax,) = _figure(3.0, 1, 1)
    last = len(ratio) - 1
    step = np.arange(last + 1)
    for low, high in BANDS:
        edges = np.percentile(ratio, (low, high), axis=1)  # (2, S + 1)
        ax.fill_between(step, *edges, color=BLUE, alpha=0.22, linewidth=0)
        for percent, edge in ((low, edges[0, -1]), (high, edges[1, -1])):
            ax.annotate(f" {percent} %", (last, edge), color=TEXT, fontsize=7, va="center")
    ax.plot(step, np.median(ratio, axis=1), color=BLUE, linewidth=1.6, label="median")
    for bound, label in ((1.0 - clip_coef, None), (1.0 + clip_coef, "clip range")):
        ax.axhline(bound, color=VERMILLION, linewidth=1.2, linestyle=(0, (5, 2)), label=label)
    _epochs(ax, last, steps_per_epoch, first=0)
    ax.set_xlim(0, 1.05 * last)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8, frameon=False, labelcolor=TEXT)
    ax.set_ylabel("ratio", color=TEXT, fontsize=8)
    ax.set_xlabel("gradient steps taken", color=TEXT, fontsize=8)
    outside = float((np.abs(ratio[-1] - 1.0) > clip_coef).mean())
    _title(ax, f"After {last} steps {outside:.0%} of the ratios are outside 1 ± {clip_coef:g}")
    return figure


def minibatch_figure(
    approx_kl: np.ndarray,
    clip_fraction: np.ndarray,
    grad_norm: np.ndarray,
    max_grad_norm: float,
    steps_per_epoch: int,
) -> Figure:
    """Draw the KL (nats), clip fraction and gradient norm of each of S minibatches before its step, (S,) each."""
    figure, axes = _figure(2.4, 1, 3, wspace=0.3)
    rows = (
        ("KL from the policy that acted", "nats", approx_kl),
        ("Outside the clip range", "share of samples", clip_fraction),
        ("Gradient before clipping", "norm", grad_norm),
    )
    for ax, (name, unit, values) in zip(axes, rows, strict=True):
        ax.plot(np.arange(1, len(values) + 1), values, color=BLUE, linewidth=1.2, marker=".", markersize=5)
        _epochs(ax, len(values), steps_per_epoch, first=0.5)
        ax.set_ylabel(unit, color=TEXT, fontsize=8)
        ax.set_xlabel("minibatch", color=TEXT, fontsize=8)
        _title(ax, name)
    axes[2].axhline(max_grad_norm, color=VERMILLION, linewidth=1.2, linestyle=(0, (5, 2)), label="max_grad_norm")
    axes[2].legend(loc="upper right", fontsize=8, frameon=False, labelcolor=TEXT)
    for ax in axes:
        ax.set_ylim(0.0, 1.05 * ax.get_ylim()[1] or 1.0)
    return figure


def surrogate_figure(surrogate: SurrogateSteps, steps_taken: int) -> Figure:
    """Draw which samples still have a gradient after `steps_taken` gradient steps, and the objective so far.

    Left: a dot per sample, advantage over ratio; the regions without a gradient are shaded. Right: the mean objective
    after each step. Advantages beyond the 98th percentile of their absolute value are drawn at the edge.
    """
    figure, (dots, curve) = _figure(3.1, 1, 2, wspace=0.22, width_ratios=(1.5, 1))
    ratio, advantage, stopped = surrogate.ratio[steps_taken], surrogate.advantage, surrogate.stopped[steps_taken]
    reach = _round_up(float(np.abs(surrogate.ratio - 1.0).max()))
    limit = _round_up(float(np.percentile(np.abs(advantage), 98)))
    low, high = 1.0 - surrogate.clip_coef, 1.0 + surrogate.clip_coef
    for begin, end, side in ((high, 1.0 + reach, (0, limit)), (1.0 - reach, low, (-limit, 0))):
        dots.fill_between([begin, end], *side, color=VERMILLION, alpha=0.13, linewidth=0)
    for rows, color in ((~stopped, BLUE), (stopped, VERMILLION)):
        dots.plot(ratio[rows], advantage[rows].clip(-limit, limit), ".", color=color, markersize=4, alpha=0.6, mew=0)
    dots.set_xlim(max(1.0 - reach, 0.0), 1.0 + reach)
    dots.set_ylim(-1.03 * limit, 1.03 * limit)
    dots.axhline(0, color=TEXT, linewidth=0.8)
    dots.axvline(1, color=TEXT, linewidth=0.8)
    dots.set_xlabel("ratio", color=TEXT, fontsize=8)
    cut = f" (cut at ±{limit:g})" if np.abs(advantage).max() > limit else ""
    dots.set_ylabel(f"advantage in the loss{cut}", color=TEXT, fontsize=8)
    _title(dots, f"{stopped.mean():.1%} of the samples have no gradient left")
    step = np.arange(len(surrogate.objective))
    curve.plot(step, surrogate.unclipped, color=TEXT, linewidth=1.2, linestyle=(0, (4, 2)), label="without a clip")
    curve.plot(step, surrogate.objective, color=BLUE, linewidth=1.6, label="clipped")
    curve.plot([steps_taken], [surrogate.objective[steps_taken]], "o", color=BLUE, markersize=6)
    curve.legend(loc="upper left", fontsize=8, frameon=False, labelcolor=TEXT)
    curve.set_ylim(*_room(np.concatenate([surrogate.unclipped, surrogate.objective])))
    curve.set_xlabel("gradient steps taken", color=TEXT, fontsize=8)
    curve.set_ylabel("objective", color=TEXT, fontsize=8)
    objective, unclipped = (number(float(part[steps_taken])) for part in (surrogate.objective, surrogate.unclipped))
    _title(curve, f"Objective {objective}, without a clip {unclipped}")
    return figure


def _figure(height: float, rows: int, columns: int, **grid: Any) -> tuple[Figure, list[Axes]]:
    """Create a transparent figure with fixed margins: computing them in matplotlib doubles the time of a frame."""
    figure = Figure(figsize=(9.0, height), facecolor="none")
    FigureCanvasAgg(figure)
    share = grid.pop("sharex", False)
    places = {"left": 0.07, "right": 0.965, "top": 1 - 0.32 / height, "bottom": 0.45 / height}
    axes = figure.subplots(rows, columns, sharex=share, squeeze=False, gridspec_kw=places | grid)
    for ax in axes.flat:
        style(ax)
        ax.xaxis.set_major_locator(MaxNLocator(6))  # ticks and their labels take most of a frame's time
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    return figure, list(axes.flat)


def _title(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="left", color=TEXT, fontsize=9, parse_math=False)


def _ends(terminated: np.ndarray, done: np.ndarray) -> list[tuple[np.ndarray, str, str]]:
    """Return (mask, marker, label) for terminated and for truncated steps."""
    return [(terminated, "x", "terminated"), (done & ~terminated, "o", "truncated")]


def _colors(values: np.ndarray) -> tuple[Colormap, float, float]:
    """Return a colour map and the values at its two ends; with negative values it is transparent at 0."""
    shade = np.linspace(0.0, 1.0, 128)
    blue = np.column_stack([np.tile(to_rgb(BLUE), (128, 1)), shade])  # (128, RGBA)
    low, high = np.nanpercentile(values, (1, 99))  # percentiles: a few large values would make the rest pale
    if low >= 0:
        blue[:, 3] = 0.12 + 0.88 * shade
        return ListedColormap(blue), float(min(low, 0.9 * high)), float(high) or 1.0
    red = np.column_stack([np.tile(to_rgb(VERMILLION), (128, 1)), shade[::-1]])
    reach = max(-low, high)
    return ListedColormap(np.vstack([red, blue])), -float(reach), float(reach)


def _epochs(ax: Axes, steps: int, steps_per_epoch: int, first: float) -> None:
    """Draw a line where each new epoch over the rollout starts."""
    for at in range(steps_per_epoch, steps, steps_per_epoch):
        ax.axvline(
            at + first, color=TEXT, linewidth=0.8, linestyle=":", label=None if at > steps_per_epoch else "next pass"
        )
    ax.grid(visible=False, axis="x")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _round_up(value: float) -> float:
    """Return the next round number (1, 1.5, 2, 3, 5, 7.5 x 10^k) at or above `value`; 1 for 0 or less."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0) if factor * power >= value)


def _room(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = (high - low) or 1.0
    return low - 0.08 * room, high + 0.3 * room  # space for the legend at the top
