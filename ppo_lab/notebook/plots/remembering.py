"""Plots of 08_memory: what a recurrent memory contains, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ppo_lab.notebook.plots.canvas import COLORS, DASHES, GREEN, TEXT, VERMILLION, label, number, panels, percent

MOST = 32.0  # larger ratios, and those below 1 / MOST, are drawn at the edge
SAME = 1e-4  # a ratio this close to 1 counts as 1: float32 rounding with another batch shape


def principal(rows: Any) -> np.ndarray:
    """Project rows (M, features) onto their first two principal components, (M, 2): PCA by the SVD."""
    rows = np.asarray(rows, dtype=float)
    centred = rows - rows.mean(0)
    return np.asarray(centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T)


def memory_figure(memory: Mapping[str, Any], cue: Any, moments: Mapping[str, int]) -> Figure:
    """Draw memories along their first two principal components, coloured by the cue to remember; one row per agent.

    memory: name -> (steps, M, size) of M episodes. cue: (M,) int. moments: name -> step, one column each. The
    components are computed from all moments of a row together, so that its panels are comparable.
    """
    cue = np.asarray(cue)
    figure, axes = panels(len(memory), len(moments), height=0.5 + 1.75 * len(memory), sharex="row", sharey="row")
    for row, (name, steps) in enumerate(memory.items()):
        chosen = np.asarray(steps, dtype=float)[list(moments.values())]  # (moments, M, size)
        flat = principal(chosen.reshape(-1, chosen.shape[-1])).reshape(*chosen.shape[:2], 2)
        for column, (moment, places) in enumerate(zip(moments, flat, strict=True)):
            ax = axes[row * len(moments) + column]
            for value in np.unique(cue):
                ax.plot(*places[cue == value].T, color=COLORS[value % len(COLORS)], marker=".", markersize=5, alpha=0.6,
                        markeredgewidth=0, linestyle="none")  # fmt: skip
            ax.tick_params(labelbottom=False, labelleft=False)
            label(ax, moment if row == 0 else "", "", name if column == 0 else None)
    return figure


def told_apart(memory: Any, cue: Any) -> np.ndarray:
    """Return the accuracy of a linear probe that predicts the cue from the memory at each step, (steps,).

    memory: (steps, M, size). cue: (M,) int. The probe is fitted by least squares on the first half of the episodes and
    evaluated on the second half.
    """
    memory, cue = np.asarray(memory, dtype=float), np.asarray(cue)
    half = len(cue) // 2
    wanted = np.eye(cue.max() + 1)[cue[:half]]  # (M / 2, cues)
    share = []
    for rows in memory:
        rows = np.column_stack([rows, np.ones(len(rows))])
        reader = np.linalg.lstsq(rows[:half], wanted, rcond=1e-4)[0]
        share.append(float(((rows[half:] @ reader).argmax(-1) == cue[half:]).mean()))
    return np.array(share)


def recall_figure(
    right: Mapping[str, tuple[Any, Any]],
    chance: float,
    xlabel: str = "delay (steps)",
    title: str = "How often the answer is right",
) -> Figure:
    """Draw the share of correct answers over the delay. right: name -> (delay, share), (delays,) each."""
    figure, (ax,) = panels(1, 1, height=2.6)
    for (name, (delay, share)), color, dashes in zip(right.items(), COLORS, DASHES, strict=False):
        ax.plot(delay, share, color=color, linestyle=dashes, linewidth=1.6, marker="o", markersize=3.5, label=name)
    ax.axhline(chance, color=TEXT, linewidth=1.0, linestyle=":", label="guessing")
    ax.set_ylim(0.0, 1.06)
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False, labelcolor=TEXT)
    label(ax, title, xlabel, "share of episodes")
    return figure


def ratios_figure(ratio: Mapping[str, Any]) -> Figure:
    """Draw histograms of the ratios of a rollout before any gradient step, for several ways to compute them.

    ratio: name -> any shape. Both axes are logarithmic: ratios of 2 and 1/2 are equally far from 1.
    """
    figure, axes = panels(len(ratio), 1, height=0.9 + 1.05 * len(ratio), sharex=True)
    values = {name: np.asarray(each, dtype=float).ravel() for name, each in ratio.items()}
    reach = max(1.1, *(float(np.exp(np.abs(np.log(each.clip(1 / MOST, MOST))).max())) for each in values.values()))
    edges = np.geomspace(1 / reach, reach, 82).tolist()  # an odd number of bars, so that one is centred on 1
    for (name, each), ax in zip(values.items(), axes, strict=True):
        wrong = float((np.abs(each - 1.0) > SAME).mean())
        ax.hist(
            each.clip(edges[0], edges[-1]), bins=edges, color=VERMILLION if wrong else GREEN, alpha=0.8, linewidth=0
        )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(bottom=0.5)
        label(ax, f"{name}: {percent(wrong)} of the ratios are not 1", "", "steps")
    axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes[-1].set_xlabel("ratio", color=TEXT, fontsize=8)
    return figure
