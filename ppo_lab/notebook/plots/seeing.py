"""Plots of 07_pixels_and_entities: observations, feature maps, attention weights and action probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppo_lab.notebook.plots.canvas import BLUE, COLORS, TEXT, VERMILLION, label, number, panels, style

KINDS = ("paddle", "ball", "decoy")


def views_figure(frame: Any, pixels: Any, entities: Any, present: Any, vector: Any) -> Figure:
    """Draw one step of Catch: the rendered frame, and the three kinds of observation.

    frame: (H, W, 3) uint8. pixels: (h, w). entities: (n, 5): x, y, and the kind, one-hot. present: (n,) bool.
    vector: (k,): x of the paddle, x and y of the ball, x of the decoys.
    """
    figure, (people, grid, scatter, bars) = panels(1, 4, height=2.6)
    people.imshow(np.asarray(frame))
    _picture(grid, np.asarray(pixels, dtype=float), "Greys_r")
    entities, present = np.asarray(entities, dtype=float), np.asarray(present, dtype=bool)
    for kind, (name, color) in enumerate(zip(KINDS, (BLUE, VERMILLION, TEXT), strict=True)):
        rows = entities[present & (entities[:, 2:].argmax(-1) == kind)]
        scatter.plot(
            rows[:, 0], rows[:, 1], color=color, marker="so^"[kind], markersize=8, linestyle="none", label=name
        )
    scatter.set_xlim(-0.1, 1.1)
    scatter.set_ylim(1.12, -0.12)  # y points down, as in the frame
    vector = np.asarray(vector, dtype=float)
    bars.bar(np.arange(len(vector)), vector, color=np.where(vector < 0, VERMILLION, BLUE), linewidth=0)
    bars.axhline(0.0, color=TEXT, linewidth=0.8)
    names = ["paddle x", "ball x", "ball y", *(f"decoy {i}" for i in range(1, len(vector) - 2))]
    bars.set_xticks(range(len(vector)), names[: len(vector)], rotation=60)
    people.set_axis_off()
    label(people, "rendered frame", "")
    label(grid, f"pixels: {np.asarray(pixels).size} numbers", "")
    label(scatter, f"a set: {int(present.sum())} of {len(present)} present", "x", "y")
    label(bars, f"a vector: {len(vector)} numbers", "")
    return figure


def features_figure(image: Any, layers: Mapping[str, Any], most: int = 8) -> Figure:
    """Draw an image (h, w) and its feature maps, one row per layer: name -> (channels, h, w).

    At most `most` channels are shown, those with the largest std first.
    """
    figure, axes = panels(len(layers), most + 1, height=1.15 * len(layers) + 0.4)
    for row, (name, maps) in enumerate(layers.items()):
        maps = np.asarray(maps, dtype=float)
        order = np.argsort(-maps.std(axis=(1, 2)))[:most]
        shown = axes[row * (most + 1) : (row + 1) * (most + 1)]
        _picture(shown[0], np.asarray(image, dtype=float), "Greys_r")
        for ax, channel in zip(shown[1:], order, strict=False):
            _picture(ax, maps[channel], "cividis")
            label(ax, f"{channel}", "")
        for ax in shown[len(order) + 1 :]:
            ax.set_axis_off()
        label(shown[0], name, "")
    return figure


def attention_figure(weights: Any, names: Sequence[str]) -> Figure:
    """Draw attention weights, one panel per head: weights (heads, n, n), from the row (query) to the column (key)."""
    weights = np.asarray(weights, dtype=float)
    figure, axes = panels(1, len(weights), height=2.7, sharey=True)
    for head, (matrix, ax) in enumerate(zip(weights, axes, strict=True)):
        ax.imshow(matrix, vmin=0.0, vmax=1.0, cmap="Blues")
        for row, column in np.ndindex(matrix.shape):
            text = number(float(matrix[row, column])) if matrix[row, column] >= 0.005 else "0"
            color = "white" if matrix[row, column] > 0.55 else "black"  # for contrast with the blue of the cell
            ax.text(column, row, text, color=color, fontsize=7, ha="center", va="center")
        ax.grid(visible=False)
        ax.set_xticks(range(len(names)), names, rotation=35)
        ax.set_yticks(range(len(names)), names)
        label(ax, f"head {head}", "")
    axes[0].set_ylabel("from (query)", color=TEXT, fontsize=8)
    return figure


def probabilities_figure(rows: Mapping[str, Any], actions: Sequence[str]) -> Figure:
    """Draw action probabilities as bars, one panel per entry of rows: name -> (actions,)."""
    figure, axes = panels(1, len(rows), height=1.9, sharey=True)
    for (name, values), ax in zip(rows.items(), axes, strict=True):
        values = np.asarray(values, dtype=float)
        ax.bar(np.arange(len(values)), values, color=COLORS[0], width=0.7, linewidth=0)
        for place, value in enumerate(values):
            ax.text(place, value + 0.03, number(float(value)), color=TEXT, fontsize=8, ha="center")
        ax.set_xticks(range(len(actions)), actions)
        label(ax, name, "action")
    axes[0].set_ylim(0.0, 1.15)
    axes[0].set_ylabel("probability", color=TEXT, fontsize=8)
    return figure


def _picture(ax: Axes, values: np.ndarray, colors: str) -> None:
    """Draw values (h, w) as an image without ticks, on its own colour scale."""
    style(ax)
    ax.imshow(values, cmap=colors)
    ax.set_axis_on()
    ax.grid(visible=False)
    ax.set_xticks([])
    ax.set_yticks([])
