"""A panel that shows the policy's action distribution at every step of one environment in a rollout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ppo_lab.notebook.data.action_arrays import Number, count, numbers_of
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
    short,
    spread,
    staircase,
    style,
    title,
)

if TYPE_CHECKING:
    from ppo_lab.notebook.data.last_update import LastUpdate

MOST_STEPS = 200  # more would be narrower than a pixel or two
MOST_ACTIONS = 18  # drawn separately; the rest are merged into one
MOST_DIMENSIONS = 3
COURSE = (0.4, 0.095, 0.55, 0.335)  # left, bottom, width, height: shares of the figure
FEW = (BLUE, OCHRE, GREEN, COLORS[3], VERMILLION)  # colours of actions, if there are at most five


def course(last: LastUpdate, axes: list[Axes]) -> None:
    """Draw the policy's action distribution at every step: one row per component of the action, as many as fit.

    A discrete component is drawn as stacked probabilities, a continuous one as mean, std and the sampled actions.
    """
    rows = numbers_of(last.parts, MOST_DIMENSIONS)
    shown = _rows(axes, len(rows))
    for row, ax in zip(rows, shown, strict=True):
        first = max(len(row.taken) - MOST_STEPS, 0)
        (_choice if row.probabilities is not None else _interval)(row, ax, first, len(rows))
        _time_axis(last, ax, first, ("black", "white") if row.probabilities is not None else (TEXT,))
        if ax is not shown[-1]:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
    title(shown[0], f"Environment 0: {_summary(last, len(rows))}")


def _summary(last: LastUpdate, rows: int) -> str:
    """Summarize all components of the action in words: the mean of the largest probability, or of the std."""
    every = numbers_of(last.parts, count(last.parts))
    sure = np.array([_mean(one.probabilities.max(-1)) for one in every if one.probabilities is not None])
    std = np.array([_mean(one.std) for one in every if one.std is not None])
    if len(every) == len(sure) == 1:
        words = f"its likeliest action has {percent(sure[0])} on average"
    elif len(sure):
        words = f"the likeliest choices have {percent(_mean(sure))} on average"
    else:
        words = f"actions (dots) around the policy's mean, std {number(_mean(std))}"
    which = "" if rows == len(every) else "; the first " if len(last.parts) == 1 else "; "
    kind = "numbers" if len(sure) else "dimensions"
    return words + (which and f"{which}{rows} of {len(every)} {kind}")


def _choice(row: Number, ax: Axes, first: int, rows: int) -> None:
    """Draw the probabilities of a discrete component, stacked."""
    assert row.probabilities is not None
    known = np.nan_to_num(np.asarray(row.probabilities, dtype=float))
    most = MOST_ACTIONS if rows == 1 else MOST_ACTIONS // rows - 1  # as many names as fit beside it
    probabilities, names = _likeliest(known, row.first, most)  # (T, n)
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
    numbers(ax.yaxis, 5 if rows == 1 else 2)
    ax.set_ylabel("probability" if rows == 1 else short(row.name, 14), color=TEXT, fontsize=8)


def _interval(row: Number, ax: Axes, first: int, rows: int) -> None:
    """Draw the policy's mean, a band of one std, and the sampled actions as dots."""
    step = np.arange(first, len(row.taken))
    center, width, drawn = (np.asarray(part, dtype=float)[first:] for part in (row.mean, row.std, row.taken))
    low, high = spread(np.concatenate([center - width, center + width, drawn]))
    ax.fill_between(step, (center - width).clip(low, high), (center + width).clip(low, high),
                    color=BLUE, alpha=0.2, linewidth=0)  # fmt: skip
    ax.plot(step, center.clip(low, high), color=BLUE, linewidth=1.3, marker=marker(step))
    dots(ax, step, drawn.clip(low, high), OCHRE)
    ax.set_ylim(low, high)
    numbers(ax.yaxis, 2 if rows > 1 else 4)
    ax.set_ylabel(short(row.name, 14), color=TEXT, fontsize=8)


def _mean(values: np.ndarray) -> float:
    """Return the mean of the finite values; NaN where there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def _colors(n: int) -> list[Any]:
    """Return n colours. If there are many, they alternate between two halves of a colour map, so neighbours differ."""
    if n <= len(FEW):
        return list(FEW[:n])
    ramp = [colormaps["cividis"](place) for place in np.linspace(0.0, 1.0, n)]
    return [ramp[i // 2 + (i % 2) * ((n + 1) // 2)] for i in range(n)]


def _rows(axes: list[Axes], rows: int) -> list[Axes]:
    """Place the first `rows` axes below each other, hide the others, and return the visible ones."""
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
    """Label the x axis with the steps of the rollout, and mark where episodes ended."""
    T = len(last.done)
    ended = np.flatnonzero(last.done[first:]) + first + 0.5  # (episodes,)
    for i, color in enumerate(colors):
        dashes = "--" if i == len(colors) - 1 else "-"
        ax.vlines(ended, *ax.get_ylim(), color=color, linewidth=1.4, linestyle=dashes)
    ax.set_xlim(first - 0.5, max(T, 1) - 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    text = "step of the rollout" + (f", the last {T - first} of {T:,}" if first else "")
    ax.set_xlabel(text + ("; dashed: an episode ended" if len(ended) else ""), color=TEXT, fontsize=8)


def _likeliest(probabilities: np.ndarray, first: int, most: int) -> tuple[np.ndarray, list[str]]:
    """Keep the `most` likeliest choices: return (T, n) and n names, n <= most; the last one is the sum of the rest."""
    n = probabilities.shape[-1]
    if n <= most:
        return probabilities, [str(first + i) for i in range(n)]
    kept = np.sort(probabilities.mean(0).argsort()[::-1][: most - 1])
    rest = np.delete(probabilities, kept, axis=-1).sum(-1, keepdims=True)
    return np.concatenate([probabilities[:, kept], rest], -1), [*map(str, first + kept), "rest"]
