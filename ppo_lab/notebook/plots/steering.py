"""Plots of 06_continuous_control: action densities, samples at the bounds of a Box, exploration, std and entropy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ppo_lab.notebook.plots.canvas import (
    BLUE,
    COLORS,
    DASHES,
    OCHRE,
    TEXT,
    VERMILLION,
    label,
    number,
    numbers,
    panels,
    percent,
    steps_axis,
)

NEAR = 0.005  # of the width of the Box: a sample this close to a bound counts as at the bound


def densities_figure(densities: Mapping[str, tuple[Any, Any]], low: float, high: float, height: float = 2.3) -> Figure:
    """Draw densities of one action side by side. densities: name -> (action, density), (points,) each.

    low, high: the bounds of the Box, drawn as dotted lines. The part outside is red; each title states its share.
    """
    figure, axes = panels(1, len(densities), height, sharex=True)
    for (name, (x, density)), ax in zip(densities.items(), axes, strict=True):
        x, density = np.asarray(x, dtype=float), np.asarray(density, dtype=float)
        whole, inside = (
            float(np.trapezoid(np.where(part, density, 0.0), x)) for part in (True, (x >= low) & (x <= high))
        )
        for part, color in ((x < low, VERMILLION), ((x >= low) & (x <= high), BLUE), (x > high, VERMILLION)):
            ax.plot(x[part], density[part], color=color, linewidth=1.6)
            ax.fill_between(x[part], density[part], color=color, alpha=0.25, linewidth=0)
        for bound in (low, high):
            ax.axvline(bound, color=TEXT, linewidth=1.0, linestyle=":")
        ax.set_ylim(0.0, 1.15 * float(np.quantile(density, 0.995)) or 1.0)
        numbers(ax.yaxis)
        ax.set_xlim(low - (high - low), high + (high - low))
        label(ax, f"{name}\narea {whole:.2f}, outside {percent(max(whole - inside, 0.0))}", "action")
    axes[0].set_ylabel("density", color=TEXT, fontsize=8)
    return figure


def bounds_figure(drawn: Mapping[str, Any], taken: Mapping[str, Any], low: float, high: float) -> Figure:
    """Draw what policies sample and what the environment receives, one column per policy: name -> (draws,).

    drawn: in units in which the Box is [-1, 1] (for a squashed policy, before tanh). taken: in the units of the Box,
    whose bounds are low and high.
    """
    figure, axes = panels(2, len(drawn), height=3.9)
    top, bottom = axes[: len(drawn)], axes[len(drawn) :]
    for (name, draws), above, below in zip(drawn.items(), top, bottom, strict=True):
        draws, gets = np.asarray(draws, dtype=float).ravel(), np.asarray(taken[name], dtype=float).ravel()
        above.hist(draws.clip(-3.5, 3.5), bins=np.linspace(-3.5, 3.5, 71).tolist(), color=BLUE, alpha=0.75, linewidth=0)
        for bound in (-1.0, 1.0):
            above.axvline(bound, color=TEXT, linewidth=1.0, linestyle=":")
        at_bound = (gets < low + NEAR * (high - low)) | (gets > high - NEAR * (high - low))
        below.hist(gets, bins=np.linspace(low, high, 41).tolist(), color=OCHRE, alpha=0.85, linewidth=0)
        label(above, f"{name}: std {number(float(draws.std()))}", "drawn (dotted: the bounds)")
        label(below, f"{percent(float(at_bound.mean()))} within 0.5 % of a bound", "what the environment receives")
        for ax in (above, below):
            ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    top[0].set_ylabel("draws", color=TEXT, fontsize=8)
    bottom[0].set_ylabel("draws", color=TEXT, fontsize=8)
    figure.align_ylabels(axes)
    return figure


def explore_figure(action: Mapping[str, Any], place: Mapping[str, Any], goal: float) -> Figure:
    """Draw actions and positions of N cars for several ways to explore, one column each: name -> (steps, N)."""
    figure, axes = panels(2, len(action), height=3.9, sharey="row")
    top, bottom = axes[: len(action)], axes[len(action) :]
    for (name, actions), above, below in zip(action.items(), top, bottom, strict=True):
        actions, places = np.asarray(actions, dtype=float), np.asarray(place[name], dtype=float)
        above.plot(actions[:, 0], color=BLUE, linewidth=0.8)
        below.plot(places, color=OCHRE, linewidth=0.7, alpha=0.7)
        below.axhline(goal, color=TEXT, linewidth=1.0, linestyle=":")
        span = float(np.median(np.ptp(places, axis=0)))
        label(above, f"{name}: std {number(float(actions.std()))} over all cars", "step")
        label(below, f"half of the {places.shape[1]} cars cover {number(span)} or more", "step")
    top[0].set_ylabel("action of one car", color=TEXT, fontsize=8)
    bottom[0].set_ylabel("position (dotted: the goal)", color=TEXT, fontsize=8)
    figure.align_ylabels(axes)
    return figure


def width_figure(std: Mapping[str, Any], angle: Any, speed: Any) -> Figure:
    """Draw the policy's std by angle and speed on one colour scale: name -> std (speeds, angles)."""
    figure, axes = panels(1, len(std), height=2.7, sharey=True)
    values = [np.asarray(each, dtype=float) for each in std.values()]
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    extent = (float(angle[0]), float(angle[-1]), float(speed[0]), float(speed[-1]))
    for name, value, ax in zip(std, values, axes, strict=True):
        drawn = ax.imshow(value, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high, cmap="cividis")
        ax.grid(visible=False)
        label(ax, f"{name}: std {number(float(value.min()))} to {number(float(value.max()))}", "angle (0: upright)")
    axes[0].set_ylabel("speed (rad/s)", color=TEXT, fontsize=8)
    bar = figure.colorbar(drawn, ax=axes, pad=0.01)
    bar.ax.tick_params(colors=TEXT, labelsize=8)
    bar.outline.set_visible(False)
    return figure


def entropy_figure(above: Mapping[str, tuple[Any, Any]]) -> Figure:
    """Draw the entropy during training, relative to the uniform distribution over the Box.

    above: name -> (env steps, nats), (updates,) each.
    """
    figure, (ax,) = panels(1, 1, height=2.6)
    ends = [0.0]
    for (name, (step, nats)), color, dashes in zip(above.items(), COLORS, DASHES, strict=False):
        ax.plot(step, nats, color=color, linestyle=dashes, linewidth=1.8, label=name)
        ends.append(float(np.asarray(step)[-1]))
    ax.axhline(0.0, color=TEXT, linewidth=1.0, linestyle=":", label="uniform over the Box")
    steps_axis(ax, np.array([max(ends)]), None)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False, labelcolor=TEXT)
    label(ax, "No distribution inside the Box is above the dotted line", "env steps", "entropy above uniform (nats)")
    return figure
