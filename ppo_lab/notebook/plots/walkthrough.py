"""Plots of 02_ppo_explained, drawn from what the notebook's cells have measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ppo_lab.notebook.plots.canvas import (
    BLUE,
    COLORS,
    DASHES,
    GREEN,
    TEXT,
    VERMILLION,
    Columns,
    column,
    finite,
    label,
    number,
    panels,
    steps_axis,
)

MOST_DOTS = 600  # samples in a clip picture; more would overlap


def habits_figure(probability: Mapping[str, np.ndarray], action: str) -> Figure:
    """Draw how the action probabilities of many dogs (learners) change, one panel per learning rule.

    probability: name -> probability of choosing `action`, (lessons + 1, dogs). Thin lines are single dogs, the thick
    line is their median.
    """
    figure, axes = panels(1, len(probability), height=2.9, sharey=True)
    for (name, habit), color, ax in zip(probability.items(), COLORS, axes, strict=False):
        habit = np.asarray(habit, dtype=float)
        low, high = np.quantile(habit[-1], (0.1, 0.9))
        ax.plot(habit, color=color, alpha=0.35, linewidth=0.8)
        ax.plot(np.median(habit, axis=1), color=color, linewidth=2.6)
        ax.axhline(0.5, color=TEXT, linewidth=0.8, linestyle=":")
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlim(0, max(len(habit) - 1, 1))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        label(ax, f"{name}: 8 of 10 dogs end at {low:.2f} to {high:.2f}", "lessons")
    axes[0].set_ylabel(f"probability of {action}", color=TEXT, fontsize=8)
    return figure


def noise_figure(gradient: Mapping[str, np.ndarray]) -> Figure:
    """Draw histograms of the gradient of single lessons, one row per learning rule: name -> (lessons,)."""
    rows = {name: np.asarray(values, dtype=float) for name, values in gradient.items()}
    figure, axes = panels(len(rows), 1, height=1.0 + 1.15 * len(rows), sharex=True)
    low, high = min(values.min() for values in rows.values()), max(values.max() for values in rows.values())
    bins = np.linspace(min(low, 0.0), max(high, 0.0) + 1e-9, 61).tolist()
    for (name, values), color, ax in zip(rows.items(), COLORS, axes, strict=False):
        ax.hist(values, bins=bins, color=color, alpha=0.75, linewidth=0)
        ax.axvline(values.mean(), color=TEXT, linewidth=1.6, linestyle="--")
        ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        label(ax, f"{name}: {number(values.mean())} on average, std {number(values.std())}", "", "lessons")
    axes[-1].set_xlabel("pull of one lesson on the score (dashed: the average)", color=TEXT, fontsize=8)
    return figure


def patience_figure(returns: Mapping[float, np.ndarray]) -> Figure:
    """Draw the discounted return at every step of one episode, for several gammas: gamma -> (steps,)."""
    figure, (ax,) = panels(1, 1, height=2.7)
    for (gamma, value), color, dashes in zip(returns.items(), COLORS, DASHES, strict=False):
        ax.plot(value, color=color, linestyle=dashes, linewidth=1.8, label=f"γ = {gamma:g}")
    ax.set_xlim(0, max(len(next(iter(returns.values()))) - 1, 1))
    ax.set_ylim(bottom=0)
    ax.legend(loc="upper right", fontsize=8, frameon=False, labelcolor=TEXT, handlelength=3.2)
    label(ax, "With a smaller γ the return falls later before the end", "step of the episode", "discounted return")
    return figure


def episode_figure(reward: np.ndarray, value: np.ndarray, delta: np.ndarray, advantage: np.ndarray) -> Figure:
    """Draw rewards, values, TD errors and advantages of one episode, (steps,) each, in four rows."""
    figure, axes = panels(4, 1, height=4.6, sharex=True)
    rows = (
        (reward, "reward r", "Reward of each step"),
        (value, "value V", "Return that the critic still expected"),
        (delta, "delta δ", "Surprise of each step"),
        (advantage, "advantage A", "Rating of each action: its surprise and the discounted later ones"),
    )
    for ax, (column_values, unit, text) in zip(axes, rows, strict=True):
        values = np.asarray(column_values, dtype=float)
        colors = np.where(values >= 0, BLUE, VERMILLION)
        ax.bar(np.arange(len(values)), values, color=colors, width=0.85, linewidth=0)
        ax.axhline(0.0, color=TEXT, linewidth=0.8)
        ax.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        label(ax, text, "", unit)
    axes[-1].set_xlim(-0.7, max(len(reward), 1) - 0.3)
    axes[-1].xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes[-1].set_xlabel("step of the episode", color=TEXT, fontsize=8)
    figure.align_ylabels(axes)
    return figure


def critics_figure(value: Mapping[str, np.ndarray], global_step: np.ndarray, truth: float) -> Figure:
    """Draw the mean prediction of critics during training, and the true value.

    value: name -> (updates,). global_step: (updates,) env steps.
    """
    figure, (ax,) = panels(1, 1, height=2.7)
    for (name, values), color, dashes in zip(value.items(), COLORS, DASHES, strict=False):
        ax.plot(global_step, values, color=color, linestyle=dashes, linewidth=1.8, label=name)
    ax.axhline(truth, color=TEXT, linewidth=1.2, linestyle=":")
    ax.annotate(
        f"true: {number(truth, digits=3)}", (0, truth), xycoords=("axes fraction", "data"), xytext=(4, 3),
        textcoords="offset points", color=TEXT, fontsize=8,
    )  # fmt: skip
    ax.set_ylim(top=1.18 * max(truth, *(float(np.max(values)) for values in value.values())))
    steps_axis(ax, global_step, None)
    ax.legend(loc="lower right", fontsize=8, frameon=False, labelcolor=TEXT, handlelength=3.2)
    label(ax, "Value that the critic predicts for a pole that does not fall", "env steps", "mean value")
    return figure


def clip_figure(ratio: np.ndarray, advantage: np.ndarray, clip_coef: float) -> Figure:
    """Draw PPO's objective over the ratio for both signs of the advantage, and the samples of a run.

    ratio, advantage: any shape, the same for both. The objective is divided by |advantage|, so that all samples of one
    sign are on one curve.
    """
    figure, axes = panels(1, 2, height=3.2)
    signs = ((1.0, "Better than expected (A > 0): do it more"), (-1.0, "Worse than expected (A < 0): do it less"))
    ratio, advantage = np.asarray(ratio, dtype=float).ravel(), np.asarray(advantage, dtype=float).ravel()
    for ax, (sign, text) in zip(axes, signs, strict=True):
        mine = ratio[advantage * sign > 0]
        slack = mine * sign <= sign + clip_coef  # clipping acts only in the direction that the advantage favours
        reach = max(2.0 * clip_coef, 1.1 * float(np.abs(mine - 1.0).max(initial=0.0)))
        grid = np.linspace(max(0.0, 1.0 - reach), 1.0 + reach, 201)
        ax.plot(grid, _objective(grid, sign, clip_coef), color=TEXT, linewidth=1.2)
        ax.axvspan(1.0 - clip_coef, 1.0 + clip_coef, color=GREEN, alpha=0.16, linewidth=0)
        for chosen, color, marker, name in (
            (slack, BLUE, "o", f"{slack.sum():,} pull"),
            (~slack, VERMILLION, "x", f"{(~slack).sum():,} held: slope 0"),
        ):
            dots = mine[chosen][:: max(1, math.ceil(chosen.sum() / MOST_DOTS))]
            ax.plot(
                dots, _objective(dots, sign, clip_coef), color=color, marker=marker, markersize=4.5, alpha=0.5,
                linestyle="none", label=name,
            )  # fmt: skip
        ax.set_xlim(grid[0], grid[-1])
        ax.legend(loc="lower right" if sign > 0 else "lower left", fontsize=8, frameon=False, labelcolor=TEXT)
        label(ax, text, "ratio", "objective / |A|")
    return figure


def leash_figure(runs: Mapping[str, Sequence[Columns]], healthy_kl: float) -> Figure:
    """Draw the KL of each update and the return, for several configurations with several seeds each.

    runs: name -> the columns of each seed: "global_step", "update/approx_kl", "episode/return_mean", (updates,) each.
    healthy_kl: the KL up to which the left panel is shaded.
    """
    figure, (left, right) = panels(1, 2, height=2.9)
    ends = [0.0]
    for (name, group), color, dashes in zip(runs.items(), COLORS, DASHES, strict=False):
        for i, columns in enumerate(group):
            step = column(columns, "global_step")
            for ax, metric, least in ((left, "update/approx_kl", 1e-5), (right, "episode/return_mean", -math.inf)):
                values = column(columns, metric)
                rows = finite(step, values)
                text = name if i == 0 else None
                ax.plot(step[rows], values[rows].clip(least), color=color, linestyle=dashes, linewidth=1.4, label=text)
            ends += [float(step[-1])] if len(step) else []
    left.set_yscale("log")
    left.axhspan(1e-5, healthy_kl, color=GREEN, alpha=0.16, linewidth=0)
    left.set_ylim(bottom=1e-5)
    for ax in (left, right):
        steps_axis(ax, np.asarray([max(ends)]), None)
    right.legend(loc="upper left", fontsize=8, frameon=False, labelcolor=TEXT, handlelength=3.2)
    right.set_ylim(top=1.15 * right.get_ylim()[1])
    label(left, "How far an update moved the policy", "env steps", "KL (nats)")
    label(right, "The resulting return", "env steps", "return")
    return figure


def _objective(ratio: np.ndarray, sign: float, clip_coef: float) -> np.ndarray:
    return np.minimum(ratio * sign, ratio.clip(1.0 - clip_coef, 1.0 + clip_coef) * sign)
