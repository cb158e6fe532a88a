"""The picture of limits.py: what an env step costs and what memory training takes, by the number of environments."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from settings import RESULTS

from ppo_lab.notebook.plots.canvas import BLUE, TEXT, VERMILLION, number, style, to_small_png

PICTURE = RESULTS / "scaling.png"


def write_picture(sizes: list[dict[str, Any]]) -> None:
    """Draw results/scaling.png from the rows of limits.json's `scaling`."""
    PICTURE.write_bytes(to_small_png(scaling_figure(sizes), dpi=110))


def scaling_figure(sizes: list[dict[str, Any]]) -> Figure:
    """Two panels over num_envs: the cost of an env step, and the memory planned and seen."""
    figure = Figure(figsize=(8.0, 2.8), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes: list[Axes] = list(figure.subplots(1, 2))
    envs = [one["num_envs"] for one in sizes]
    cost = [one["microseconds"] for one in sizes]
    axes[0].plot(envs, cost, "o-", color=BLUE)
    for x, y in zip(envs, cost, strict=True):
        axes[0].annotate(number(y), (x, y), xytext=(0, 6), textcoords="offset points", ha="center", color=TEXT, size=8)
    axes[0].set_ylim(0.0, 1.25 * max(cost))
    axes[0].set_title("microseconds per env step", color=TEXT, size=9)
    for name, key, colour in (("planned", "planned_bytes", BLUE), ("seen", "seen_bytes", VERMILLION)):
        known = [(one["num_envs"], one[key] / 1e6) for one in sizes if one[key] is not None]
        axes[1].plot(*zip(*known, strict=True), "o-", color=colour, label=name)
    axes[1].set_yscale("log")
    axes[1].set_title("memory, MB", color=TEXT, size=9)
    axes[1].legend(frameon=False, labelcolor=TEXT, fontsize=8)
    for ax in axes:
        style(ax)
        ax.set_xscale("log", base=2)
        ax.set_xticks(envs, [f"{n:,}" for n in envs])
        ax.set_xlabel("num_envs", color=TEXT, size=8)
    return figure
