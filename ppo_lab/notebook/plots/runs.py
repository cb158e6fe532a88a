"""Plots of several runs: the tree of forks, and one metric of all runs on the same axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ppo_lab.notebook.plots.canvas import (
    BLUE,
    COLORS,
    DASHES,
    MOST_NOTES,
    TEXT,
    Columns,
    JournalLine,
    legend,
    mark,
    marker,
    own,
    points,
    setting,
    short,
    steps,
    style,
)


class Branch(NamedTuple):
    """A run in the tree."""

    name: str
    parent: str | None
    forked_at: int | None  # env step at which it was forked from its parent
    steps: int  # env step it has reached


def new_figure(rows: float = 10.0) -> tuple[Figure, Axes]:
    """Create a transparent figure with one axes, high enough for `rows` runs of a tree or lines of a legend."""
    figure = Figure(figsize=(9.0, 0.9 + 0.26 * max(rows, 3.0)), facecolor="none", layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def plot_lineage(summaries: Iterable[Any], ax: Axes) -> None:
    """Draw the tree of runs over env steps: a line from the first to the last step of each, connected to its parent.

    summaries: `ppo_lab.list_runs(root)`, or tuples (name, parent, forked_at, steps). A fork whose parent is not among
    them starts with a dotted line from the left.
    """
    branches = [_branch(summary) for summary in summaries]
    rows = _rows(branches)  # name -> row, 0 at the top
    style(ax)
    ax.grid(visible=False, axis="y")
    for branch in branches:
        row = rows[branch.name]
        begin = _begin(branch)
        if branch.parent in rows and branch.forked_at is not None:
            ax.plot([begin, begin], [rows[branch.parent], row], color=TEXT, linewidth=1.2, zorder=1)
            ax.plot([begin], [rows[branch.parent]], color=TEXT, marker="o", markersize=4, zorder=3)
        elif branch.forked_at is not None:
            ax.plot([0, begin], [row, row], color=TEXT, linewidth=1.2, linestyle=":", zorder=1)
        ax.plot([begin, max(branch.steps, begin)], [row, row], color=BLUE, linewidth=2.6, zorder=2)
        ax.plot([max(branch.steps, begin)], [row], color=BLUE, marker="o", markersize=6, zorder=3)
    ax.set_yticks(list(rows.values()), [_label(branches, name, rows) for name in rows])
    ax.set_ylim(max(len(rows), 1) - 0.4, -0.6)  # row 0 at the top
    end = max((max(branch.steps, _begin(branch)) for branch in branches), default=0) or 1
    _steps_axis(ax, 0.0, end)
    _title(ax, f"{len(branches)} run{'s' if len(branches) != 1 else ''}" if branches else "No runs yet")


def plot_runs(
    columns_by_name: Mapping[str, Columns],
    ax: Axes,
    changes_by_name: Mapping[str, Sequence[JournalLine]] | None = None,
    metric: str = "episode/return_mean",
    ylabel: str = "return",
) -> None:
    """Draw one metric of several runs on one axis, over env steps.

    columns_by_name: run -> the result of `ppo_lab.read_metrics`, arrays (updates,). changes_by_name: run -> the result
    of `ppo_lab.read_journal`; changes are numbered triangles. Changes that a fork inherited are marked only once.
    """
    style(ax)
    ax.set_ylabel(ylabel, color=TEXT, fontsize=8)
    notes: list[tuple[Any, str]] = []  # a handle of the legend and its text
    ends, drawn, count = [1.0], False, 0
    for i, (name, columns) in enumerate(columns_by_name.items()):
        step, value = points(columns, metric)
        changes = own(columns, (changes_by_name or {}).get(name, ()))
        color, dashes = COLORS[i % len(COLORS)], DASHES[i % len(DASHES)]
        (line,) = ax.plot(step, value, color=color, linestyle=dashes, linewidth=1.8, marker=marker(step), zorder=2)
        notes.append((line, short(name) if len(step) else f"{short(name)}: nothing yet"))
        for change in changes:
            count += 1
            triangle = mark(ax, change.global_step, str(count), color, step, value)
            if count <= MOST_NOTES:
                notes.append((triangle, f"{count}  {change.key} {setting(change.old)} → {setting(change.new)}"))
            elif count == MOST_NOTES + 1:
                notes.append((triangle, "more changes: see the journal"))
        ends += [*step[-1:], *(change.global_step for change in changes)]
        drawn |= len(step) > 0
    _steps_axis(ax, 0.0, max(ends))
    ax.yaxis.set_major_locator(MaxNLocator(7))
    ax.margins(y=0.12)
    _title(ax, "" if drawn else "No episode has ended yet")
    if notes:
        legend(ax, notes)


def _rows(branches: Sequence[Branch]) -> dict[str, int]:
    """Assign a row to every run: forks below their parent, the latest first, so that no connector crosses a line."""
    known = {branch.name for branch in branches}
    children: dict[str | None, list[str]] = {}
    for branch in sorted(branches, key=_begin, reverse=True):
        children.setdefault(branch.parent if branch.parent in known else None, []).append(branch.name)
    roots = [branch.name for branch in branches if branch.parent not in known]
    rows: dict[str, int] = {}
    for root in [*roots, *(branch.name for branch in branches)]:  # the rest: runs that name each other as parent
        waiting = [root]
        while waiting:
            name = waiting.pop()
            if name not in rows:
                rows[name] = len(rows)
                waiting += reversed(children.get(name, []))
    return rows


def _branch(summary: Any) -> Branch:
    if hasattr(summary, "forked_at"):
        return Branch(summary.name, summary.parent, summary.forked_at, summary.steps)
    return Branch(*summary)


def _begin(branch: Branch) -> int:
    return branch.forked_at or 0


def _label(branches: Sequence[Branch], name: str, rows: Mapping[str, int]) -> str:
    parent = next(branch.parent for branch in branches if branch.name == name)
    gone = parent is not None and parent not in rows
    return f"{short(name)}\n(from {short(str(parent))})" if gone else short(name)


def _steps_axis(ax: Axes, begin: float, end: float) -> None:
    room = 0.02 * (end - begin)  # for the markers at both ends of a line
    ax.set_xlim(begin - room, end + room)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(FuncFormatter(steps))
    ax.set_xlabel("env steps", color=TEXT, fontsize=8)


def _title(ax: Axes, text: str) -> None:
    if text:
        ax.set_title(text, loc="left", color=TEXT, fontsize=9)
