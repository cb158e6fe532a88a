"""The course of one environment through a rollout: what the policy would do at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ppo_lab.notebook.plots.canvas import (
    BLUE,
    COLORS,
    GREEN,
    OCHRE,
    TEXT,
    VERMILLION,
    blank,
    dots,
    marker,
    number,
    numbers,
    percent,
    spread,
    staircase,
    style,
    title,
)

if TYPE_CHECKING:
    from ppo_lab.notebook.last_update import LastUpdate

MOST_STEPS = 200  # more would be narrower than a pixel or two
MOST_ACTIONS = 18  # told apart; the rest become one
MOST_DIMENSIONS = 3
COURSE = (0.4, 0.095, 0.55, 0.335)  # left, bottom, width, height: shares of the figure
FEW = (BLUE, OCHRE, GREEN, COLORS[3], VERMILLION)  # colours of actions, while there are so few


def choices(last: LastUpdate, probabilities: np.ndarray, axes: list[Axes]) -> None:
    """Probabilities of discrete actions, on top of each other."""
    (ax,) = _course(axes, 1)
    sure = float(probabilities.max(-1).mean()) if len(probabilities) else math.nan
    probabilities, names = _likeliest(np.nan_to_num(np.asarray(probabilities, dtype=float)))  # (T, n)
    first = max(len(probabilities) - MOST_STEPS, 0)
    edges = np.arange(first, len(probabilities) + 1) - 0.5
    tops = probabilities[first:].cumsum(-1)  # (t, n)
    n = len(names)
    ax.grid(visible=False)
    for i, (name, color) in enumerate(zip(names, _colors(n), strict=True)):
        staircase(ax, tops[:, i], edges, tops[:, i - 1] if i else 0.0, color)
        key = Rectangle((1.012, i / n), 0.018, 1 / n, color=color, linewidth=0, transform=ax.transAxes, clip_on=False)
        ax.add_artist(key)
        ax.text(1.037, (i + 0.5) / n, name, transform=ax.transAxes, color=TEXT, fontsize=7, va="center_baseline")
    ax.set_ylim(0.0, 1.0)
    numbers(ax.yaxis, 5)
    _time_axis(last, ax, first, ("black", "white"))  # seen on any colour
    ax.set_ylabel("probability", color=TEXT, fontsize=8)
    return title(ax, f"Environment 0: its likeliest action has {percent(sure)} on average")


def dimensions(last: LastUpdate, mean: np.ndarray, std: np.ndarray, axes: list[Axes]) -> None:
    """Continuous actions: where the policy aims, how widely it scatters, and what was drawn."""
    action = np.asarray(last.action, dtype=float).reshape(mean.shape)  # (T, A)
    T, size = mean.shape
    first = max(T - MOST_STEPS, 0)
    step = np.arange(first, T)
    shown = _course(axes, min(size, MOST_DIMENSIONS))
    for i, ax in enumerate(shown):
        center, width, drawn = (np.asarray(part[first:, i], dtype=float) for part in (mean, std, action))
        low, high = spread(np.concatenate([center - width, center + width, drawn]))
        ax.fill_between(step, (center - width).clip(low, high), (center + width).clip(low, high),
                        color=BLUE, alpha=0.2, linewidth=0)  # fmt: skip
        ax.plot(step, center.clip(low, high), color=BLUE, linewidth=1.3, marker=marker(step))
        dots(ax, step, drawn.clip(low, high), OCHRE)
        ax.set_ylim(low, high)
        numbers(ax.yaxis, 2 if size > 1 else 4)
        _time_axis(last, ax, first, (TEXT,))
        ax.set_ylabel(f"action {i}" if size > 1 else "action", color=TEXT, fontsize=8)
        if ax is not shown[-1]:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
    part = f"; the first {len(shown)} of {size} dimensions" if len(shown) < size else ""
    typical = float(np.mean(std[np.isfinite(std)])) if np.isfinite(std).any() else math.nan
    return title(shown[0], f"Environment 0: actions (dots) around the policy's mean, std {number(typical)}{part}")


def _colors(n: int) -> list[Any]:
    """A colour for every action. Where they are many, two ramps take turns, so that neighbours are told apart."""
    if n <= len(FEW):
        return list(FEW[:n])
    ramp = [colormaps["cividis"](place) for place in np.linspace(0.0, 1.0, n)]
    return [ramp[i // 2 + (i % 2) * ((n + 1) // 2)] for i in range(n)]


def _course(axes: list[Axes], rows: int) -> list[Axes]:
    """As many axes as there are rows, in one place."""
    left, bottom, width, height = COURSE
    each = height / (rows + 0.2 * (rows - 1))
    for i, ax in enumerate(axes):
        blank(ax)
        style(ax)
        ax.set_visible(i < rows)
        ax.set_position((left, bottom + max(rows - 1 - i, 0) * 1.2 * each, width, each))
        ax.tick_params(labelbottom=True)
    return axes[:rows]


def _time_axis(last: LastUpdate, ax: Axes, first: int, colors: Sequence[str]) -> None:
    """Steps of the rollout, and where episodes ended."""
    T = len(last.done)
    ended = np.flatnonzero(last.done[first:]) + first + 0.5  # (episodes,)
    for i, color in enumerate(colors):
        dashes = "--" if i == len(colors) - 1 else "-"
        ax.vlines(ended, *ax.get_ylim(), color=color, linewidth=1.4, linestyle=dashes)
    ax.set_xlim(first - 0.5, max(T, 1) - 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    text = "step of the rollout" + (f", the last {T - first} of {T:,}" if first else "")
    ax.set_xlabel(text + ("; dashed: an episode ended" if len(ended) else ""), color=TEXT, fontsize=8)


def _likeliest(probabilities: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(T, n) with n of at most MOST_ACTIONS, and the names of the actions; those left out are added up."""
    n = probabilities.shape[-1]
    if n <= MOST_ACTIONS:
        return probabilities, [str(i) for i in range(n)]
    kept = np.sort(probabilities.mean(0).argsort()[::-1][: MOST_ACTIONS - 1])
    rest = np.delete(probabilities, kept, axis=-1).sum(-1, keepdims=True)
    return np.concatenate([probabilities[:, kept], rest], -1), [*map(str, kept), "rest"]
