"""A plot of the last update: ratios, clipping, advantages, the critic, and the policy over time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ppo_lab.notebook.plots.canvas import (
    BLUE,
    GREEN,
    OCHRE,
    TEXT,
    VERMILLION,
    blank,
    dots,
    number,
    numbers,
    percent,
    spread,
    staircase,
    title,
)
from ppo_lab.notebook.plots.course import COURSE, MOST_DIMENSIONS, course
from ppo_lab.notebook.plots.dials import HEALTHY

if TYPE_CHECKING:
    from ppo_lab.notebook.data.last_update import LastUpdate

BINS = 41  # odd, so that the middle bar is centred on "unchanged"
FARTHEST = math.log(1e6)  # ratios beyond this are drawn at the edge
OFTEN = HEALTHY["update/clip_fraction"].high


def inside_figure(last: LastUpdate, figure: Figure | None = None) -> Figure:
    """Draw five views of an update: ratios, clipping, advantages, the critic, and the policy over time.

    Values that are not finite are left out, but infinite ratios are drawn at the edge.
    figure: an earlier result of this function to redraw.
    """
    figure = figure if figure is not None else _axes()
    ratio, clip, advantage, critic, *below = figure.axes
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = np.log(np.asarray(last.ratio, dtype=float))  # (S,) 0 is -inf
    _ratios(last, log_ratio, ratio)
    _clip(last, log_ratio, clip)
    _advantages(last, advantage)
    _critic(last, critic)
    course(last, below)
    return figure


def _axes() -> Figure:
    figure = Figure(figsize=(10.0, 5.8), facecolor="none")
    FigureCanvasAgg(figure)
    for left in (0.065, 0.4, 0.73):
        figure.add_axes((left, 0.6, 0.255, 0.345))
    figure.add_axes((0.065, 0.095, 0.255, 0.335))
    for _ in range(MOST_DIMENSIONS):
        figure.add_axes(COURSE)
    return figure


def _ratios(last: LastUpdate, log_ratio: np.ndarray, ax: Axes) -> None:
    """Draw a histogram of the ratios, with the clip range shaded. log_ratio: (S,)."""
    blank(ax)
    known = ~np.isnan(log_ratio)
    reach = _reach(log_ratio, last.clip_coef)
    ax.axvspan(*_clip_range(last.clip_coef), color=GREEN, alpha=0.16, linewidth=0)
    edges = np.linspace(-reach, reach, BINS + 1)
    drawn = log_ratio.clip(-reach, reach)
    _bars(ax, edges, [(drawn[known & ~last.clipped], BLUE), (drawn[known & last.clipped], VERMILLION)])
    ax.set_xlim(-reach, reach)
    ax.set_xticks(*_ratio_ticks(reach))
    _labels(ax, "ratio of the probabilities, after / before", "samples")
    if not known.any():
        return title(ax, "Ratio: nothing to show")
    share = float(last.clipped[known].mean())
    return title(ax, f"Ratio: {percent(share)} outside the clip range", TEXT if share <= OFTEN else VERMILLION)


def _clip(last: LastUpdate, log_ratio: np.ndarray, ax: Axes) -> None:
    """Draw ratio over advantage, and shade where clipping removes the gradient. log_ratio: (S,).

    That is only where the ratio has left the clip range in the direction that the advantage favours.
    """
    blank(ax)
    advantage = np.asarray(last.normalized, dtype=float)
    known = ~np.isnan(log_ratio) & ~np.isnan(advantage)
    reach = _reach(log_ratio, last.clip_coef)
    low, high = _clip_range(last.clip_coef)
    left, right = spread(np.append(advantage, 0.0))
    top = 1.25 * reach  # room for text
    ax.axhspan(low, high, color=GREEN, alpha=0.16, linewidth=0)
    ax.fill_between([0.0, right], high, top, color=VERMILLION, alpha=0.12, linewidth=0)
    ax.fill_between([left, 0.0], -top, low, color=VERMILLION, alpha=0.12, linewidth=0)
    ax.axvline(0.0, color=TEXT, linewidth=0.8)
    held = known & no_gradient(np.asarray(last.ratio), advantage, last.clip_coef)
    back = known & last.clipped & ~held
    for rows, color in ((known & ~held & ~back, BLUE), (back, OCHRE), (held, VERMILLION)):
        dots(ax, advantage[rows].clip(left, right), log_ratio[rows].clip(-reach, reach), color)
    for x, y, text, color in ((1, 1, "no gradient", VERMILLION), (0, 0, "no gradient", VERMILLION),
                              (0, 1, "pulled back", OCHRE), (1, 0, "pulled back", OCHRE)):  # fmt: skip
        ax.text(
            0.02 + 0.96 * x, 0.02 + 0.95 * y, text, transform=ax.transAxes, color=color, fontsize=8,
            ha="right" if x else "left", va="top" if y else "bottom",
        )  # fmt: skip
    ax.set_xlim(left, right)
    ax.set_ylim(-top, top)
    numbers(ax.xaxis)
    ax.set_yticks(*_ratio_ticks(reach))
    _labels(ax, "advantage as the update used it", "ratio")
    if not known.any():
        return title(ax, "Clip: nothing to show")
    share = float(held[known].mean())
    return title(ax, f"The clip removes the gradient of {percent(share)}", TEXT if share <= OFTEN else VERMILLION)


def no_gradient(ratio: np.ndarray, advantage: np.ndarray, clip_coef: float) -> np.ndarray:
    """Return the samples, (S,) bool, for which min(r A, clip(r) A) does not depend on r: already moved far enough."""
    return ((advantage > 0) & (ratio > 1.0 + clip_coef)) | ((advantage < 0) & (ratio < 1.0 - clip_coef))


def _advantages(last: LastUpdate, ax: Axes) -> None:
    """Draw one histogram with two scales: normalising shifts and scales the advantages, but keeps the shape."""
    blank(ax)
    known = np.isfinite(last.advantage) & np.isfinite(last.normalized)
    before, after = (np.asarray(part[known], dtype=float) for part in (last.advantage, last.normalized))
    low, high = spread(after)
    turned = before * after < 0
    edges = np.linspace(low, high, BINS + 1)
    _bars(ax, edges, [(after[~turned].clip(low, high), BLUE), (after[turned].clip(low, high), OCHRE)])
    ax.axvline(0.0, color=TEXT, linewidth=0.8)
    ax.set_xlim(low, high)
    never = last.normalize_advantage == "never"
    _labels(ax, "as GAE estimated it" if never else "in std of the rollout, from its mean", "samples")
    numbers(ax.xaxis)
    if not known.any():
        return title(ax, "Advantages: nothing to show")
    if np.ptp(before) == 0.0 or np.ptp(after) == 0.0:
        return title(ax, f"Advantages all {number(before[0])}: none better than another")
    if never:
        return title(ax, f"Advantages {number(before.mean())} ± {number(before.std())}, used as they are")
    first, last_one = after.argmin(), after.argmax()
    std = (before[last_one] - before[first]) / (after[last_one] - after[first])
    mean = before[first] - std * after[first]  # before = mean + std * after
    ticks = [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    ax.set_xticks(ticks, [f"{number(tick)}\n({number(mean + std * tick)})" for tick in ticks])
    _labels(ax, "in std of the rollout, from its mean\n(as GAE estimated it; dashed: 0)", "samples")
    if low <= -mean / std <= high:
        ax.axvline(-mean / std, color=TEXT, linewidth=1.2, linestyle="--")
    return title(ax, f"Normalising flips the sign of {percent(float(turned.mean()))}")


def _critic(last: LastUpdate, ax: Axes) -> None:
    """Draw the critic's values before the update over the returns, with the explained variance in the title."""
    blank(ax)
    known = np.isfinite(last.value) & np.isfinite(last.returns)
    value, returns = (np.asarray(part[known], dtype=float) for part in (last.value, last.returns))
    low, high = spread(np.concatenate([value, returns]))
    ax.plot([low, high], [low, high], color=TEXT, linewidth=1.0, linestyle="--")
    dots(ax, returns.clip(low, high), value.clip(low, high), BLUE)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    numbers(ax.xaxis)
    numbers(ax.yaxis)
    _labels(ax, "returns", "value before the update")
    if not known.any() or not returns.var() > 0.0:
        return title(ax, "Critic: all returns are equal" if known.any() else "Critic: nothing to show")
    explained = 1.0 - float((returns - value).var() / returns.var())
    dial = HEALTHY["update/explained_variance"]
    healthy = explained >= dial.low
    text = f"Explained variance {number(explained)}: {dial.inside if healthy else dial.below}"
    return title(ax, text, TEXT if healthy else VERMILLION)


def _reach(log_ratio: np.ndarray, clip_coef: float) -> float:
    """Return the limit of the axis as |log(ratio)|, so that nearly all samples and the clip range fit."""
    known = np.abs(log_ratio[np.isfinite(log_ratio)])
    far = float(np.quantile(known, 0.995)) if known.size else 0.0
    edges = [abs(math.log1p(side)) for side in (-clip_coef, clip_coef) if side > -1.0]
    return min(max(1.5 * max(edges), 1.1 * far, 0.05), FARTHEST)


def _clip_range(clip_coef: float) -> tuple[float, float]:
    """Return the logarithms of both ends of the clip range; for clip_coef >= 1 the lower end is out of sight."""
    return math.log1p(-clip_coef) if clip_coef < 1.0 else -2.0 * FARTHEST, math.log1p(clip_coef)


def _ratio_ticks(reach: float) -> tuple[list[float], list[str]]:
    """Return tick positions, log(ratio), and labels, for round ratios within exp(+-reach)."""
    if reach > math.log(20):
        most = int(reach / math.log(10))
        apart = 1 + most // 4
        ratios = [10.0**k for k in range(-(most // apart) * apart, most + 1, apart)]
    elif reach > math.log(2.2):
        ratios = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0]
    else:
        ratios = [float(ratio) for ratio in MaxNLocator(4).tick_values(math.exp(-reach), math.exp(reach)) if ratio > 0]
    ratios = [ratio for ratio in ratios if abs(math.log(ratio)) <= reach]
    return [math.log(ratio) for ratio in ratios], [number(ratio, 3) for ratio in ratios]


def _bars(ax: Axes, edges: np.ndarray, parts: list[tuple[np.ndarray, str]]) -> None:
    """Draw stacked histograms. edges: (bins + 1,); parts: (values, colour)."""
    below = np.zeros(len(edges) - 1)
    for values, color in parts:
        counts = below + np.histogram(values, edges)[0]
        staircase(ax, counts, edges, below, color)
        below = counts
    ax.set_ylim(0.0, 1.08 * float(below.max()) or 1.0)
    numbers(ax.yaxis)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _labels(ax: Axes, x: str, y: str) -> None:
    ax.set_xlabel(x, color=TEXT, fontsize=8)
    ax.set_ylabel(y, color=TEXT, fontsize=8)
