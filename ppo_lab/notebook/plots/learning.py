"""Plots of the learning curve of one run, with other runs for comparison and its live changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from ppo_lab.notebook.plots.canvas import (
    BLUE,
    COLORS,
    DASHES,
    MOST_NOTES,
    TEXT,
    Columns,
    JournalLine,
    blank,
    column,
    finite,
    legend,
    marker,
    number,
    own,
    points,
    setting,
    short,
    steps,
    steps_axis,
    title,
)

RETURN, LENGTH = "episode/return_mean", "episode/length_mean"
MOST_NAMED = 10  # other runs in the legend
LEFT, RIGHT = 0.075, 0.985  # edges of the axes, as shares of the width
NOTES = 0.715  # the right edge where a legend needs room
ONE_MOVE = 0.02  # of the axis: changes of one setting within this distance are merged
LABEL_ROOM = 0.025  # of the axis, for one number


class Move(NamedTuple):
    """A change of one setting, or several in quick succession, e.g. from a dragged slider."""

    first: int  # number of the first change, counted from 1
    last: int
    began: float  # env steps
    ended: float
    key: str
    old: Any
    new: Any

    @property
    def label(self) -> str:
        """The numbers of the changes as text: "3", or "3–12"."""
        return f"{self.first}" if self.first == self.last else f"{self.first}–{self.last}"


def learning_curve(columns: Columns, ax: Axes, total_timesteps: int | None = None) -> None:
    """Draw the mean return of the last 100 episodes over env steps, with a band of one standard deviation.

    columns: "global_step", "episode/return_mean", "episode/return_std", (updates,) each; they may be missing.
    total_timesteps: the end of the x axis, so that the plot shows the progress of the run (see `steps_axis`).
    """
    blank(ax)
    step, mean, std = (column(columns, name) for name in ("global_step", RETURN, "episode/return_std"))
    steps_axis(ax, step, total_timesteps)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, digits=3)))
    ax.set_ylabel("return", color=TEXT, fontsize=8)
    rows = finite(step, mean)  # (points,)
    if not rows.size:
        ax.yaxis.set_major_locator(NullLocator())
        return title(ax, "No episode has ended yet")
    step, mean, std = step[rows], mean[rows], std[rows]
    ax.yaxis.set_major_locator(MaxNLocator(7))
    ax.fill_between(step, mean - std, mean + std, color=BLUE, alpha=0.18, linewidth=0)
    ax.plot(step, mean, color=BLUE, linewidth=1.8, marker=marker(step))
    spread = np.nan_to_num(std)
    _room(ax, [mean - spread, mean + spread])
    return title(ax, f"Return {number(mean[-1], digits=3)} ± {number(std[-1])}: the last 100 episodes, mean and 1 std")


def learning_figure(
    columns: Columns,
    changes: Sequence[JournalLine] = (),
    others: Mapping[str, Columns] | None = None,
    total_timesteps: int | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw the return and the length of episodes over env steps.

    changes: live changes from the journal, drawn as numbered triangles below the curve; the last few are also listed.
    others: name -> columns of other runs, drawn as thin lines.
    figure: an earlier result of this function to redraw.
    """
    others = others or {}
    figure = figure if figure is not None else _two_axes()
    curve, length = figure.axes
    learning_curve(columns, curve, total_timesteps)
    _length(columns, length, total_timesteps)
    reach = max((float(step[-1]) for run in others.values() if len(step := points(run, RETURN)[0])), default=0.0)
    for ax in figure.axes:  # a parent may have trained further than this run has so far
        ax.set_xlim(right=max(ax.get_xlim()[1], min(reach, total_timesteps or reach)))
    mine = list(curve.lines)
    notes = _notes(_others(others, curve, RETURN), mine)
    _others(others, length, LENGTH)
    moves = _moves(columns, changes, ONE_MOVE * curve.get_xlim()[1])
    if moves:
        notes += _words(_marks(curve, moves, *points(columns, RETURN)), moves)
        for ax in figure.axes:
            ax.set_xlim(-0.03 * ax.get_xlim()[1])  # room for the number of a change at the beginning
    curve.set_xlabel("")  # the panel below has it
    curve.tick_params(labelbottom=False)
    edge = NOTES if notes else RIGHT
    curve.set_position((LEFT, 0.36, edge - LEFT, 0.57))
    length.set_position((LEFT, 0.105, edge - LEFT, 0.165))
    if notes:
        legend(curve, notes)
    return figure


def _two_axes() -> Figure:
    figure = Figure(figsize=(10.0, 4.6), facecolor="none")
    FigureCanvasAgg(figure)
    figure.add_subplot(2, 1, 1)
    figure.add_subplot(2, 1, 2)
    return figure


def _length(columns: Columns, ax: Axes, total_timesteps: int | None) -> None:
    blank(ax)
    steps_axis(ax, column(columns, "global_step"), total_timesteps)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, digits=3)))
    ax.set_ylabel("env steps", color=TEXT, fontsize=8)
    step, value = points(columns, LENGTH)
    if not len(step):
        ax.yaxis.set_major_locator(NullLocator())
        return title(ax, "Episode length: nothing yet")
    ax.yaxis.set_major_locator(MaxNLocator(3))
    ax.plot(step, value, color=BLUE, linewidth=1.5, marker=marker(step))
    _room(ax, [value])
    return title(ax, f"Episode length {number(value[-1], digits=3)}")


def _others(others: Mapping[str, Columns], ax: Axes, metric: str) -> list[tuple[Any, str]]:
    """Draw other runs, adapt the y limits to their visible parts, and return lines with names for the legend."""
    lines, end = [], ax.get_xlim()[1]
    shown = [line.get_ydata() for line in ax.lines] and [ax.get_ylim()]  # without a curve there are no limits yet
    for i, (name, columns) in enumerate(others.items()):
        step, value = points(columns, metric)
        color = COLORS[1:][i % len(COLORS[1:])]  # the first is for this run
        dashes = DASHES[1:][i % len(DASHES[1:])]
        (line,) = ax.plot(step, value, color=color, linestyle=dashes, linewidth=1.1, marker=marker(step), zorder=1.5)
        lines.append((line, short(name) if len(step) else f"{short(name)}: nothing yet"))
        shown += [value[step <= end]] if (step <= end).any() else []
    if shown and others:
        ax.yaxis.set_major_locator(MaxNLocator(7 if metric == RETURN else 3))
        _room(ax, shown)
    return lines


def _room(ax: Axes, values: Sequence[Any]) -> None:
    low, high = (float(best([best(value) for value in values])) for best in (np.min, np.max))
    room = (high - low) or abs(high) or 1.0
    ax.set_ylim(low - 0.06 * room, high + 0.1 * room)


def _moves(columns: Columns, changes: Sequence[JournalLine], near: float) -> list[Move]:
    """Return this run's changes, numbered as in the journal; merge those of one setting within `near` steps."""
    kept = {id(change) for change in own(columns, changes)}
    moves: list[Move] = []
    for i, change in enumerate(changes, start=1):
        if id(change) not in kept:
            continue
        if moves and moves[-1].key == change.key and change.global_step - moves[-1].ended <= near:
            moves[-1] = moves[-1]._replace(last=i, ended=change.global_step, new=change.new)
        else:
            moves.append(Move(i, i, change.global_step, change.global_step, change.key, change.old, change.new))
    return moves


def _marks(ax: Axes, moves: Sequence[Move], step: np.ndarray, value: np.ndarray) -> Line2D:
    """Draw numbered triangles below the curve, (points,); if two numbers would overlap, only the newer is written."""
    low, high = ax.get_ylim()
    low -= 0.12 * (high - low)  # below the curves, where the numbers are readable
    ax.set_ylim(low, high)
    at = np.array([move.began for move in moves], dtype=float)
    place = ax.get_xaxis_transform()
    (triangles,) = ax.plot(
        at, np.zeros(len(at)), color=BLUE, marker="^", markersize=6, markeredgecolor=TEXT, linestyle="none", zorder=3,
        clip_on=False, transform=place,
    )  # fmt: skip
    if len(step):
        tops = np.interp(at, step, value)
        ax.vlines(at, low + 0.1 * (high - low), tops, color=TEXT, linewidth=0.8, linestyle=":", zorder=1)
    end, free = ax.get_xlim()[1], np.inf  # labels must end left of this
    for move in reversed(moves):
        half = LABEL_ROOM * end * (0.5 + 0.25 * (len(move.label) - 1))
        if move.began + half <= free:
            free = move.began - half
            ax.text(
                move.began, 0.03, move.label, transform=place, ha="center", color=TEXT, fontsize=9, fontweight="bold"
            )
    return triangles


def _notes(lines: Sequence[tuple[Any, str]], mine: Sequence[Any]) -> list[tuple[Any, str]]:
    """Return the legend entries of this run and the other runs; empty without other runs."""
    if not lines:
        return []
    more = [(lines[MOST_NAMED][0], f"and {len(lines) - MOST_NAMED} more")] if len(lines) > MOST_NAMED else []
    return [*[(line, "this run") for line in mine], *lines[:MOST_NAMED], *more]


def _words(triangles: Any, moves: Sequence[Move]) -> list[tuple[Any, str]]:
    """Return the legend entries of the last changes, oldest first."""
    earlier = [(triangles, "earlier changes: see the journal")] if len(moves) > MOST_NOTES else []
    return earlier + [
        (triangles, f"{move.label}  {move.key} {_value(move.old)} → {_value(move.new)}") for move in moves[-MOST_NOTES:]
    ]


def _value(value: Any) -> str:
    return steps(value) if isinstance(value, int) and value >= 10_000 else setting(value)
