"""Pictures of a run, from arrays: the learning curve and the dials.

Object-oriented matplotlib only: pyplot is one global that a live dashboard and the reader's own cells would share.
Patches are transparent and text is grey, so a picture reads on a light and on a dark page.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

Columns = Mapping[str, np.ndarray]  # name -> value at every update, NaN where there was none

TEXT = "#787e88"  # contrast above 4 on white and on JupyterLab's dark page
# after the palette of Okabe and Ito, which the colour-blind tell apart; the blue is lighter, for dark pages
BLUE, GREEN, VERMILLION = "#2383cc", "#009E73", "#D55E00"
MOST_POINTS = 1500  # more than a panel has pixels


class Dial(NamedTuple):
    """A diagnostic of the update, the range it has in a healthy run, and what it says."""

    name: str
    unit: str
    low: float  # healthy from here
    high: float  # to here
    below: str
    inside: str
    above: str
    reason: str
    floor: float = -math.inf  # values below are drawn here: one bad update would flatten all others


# Rules of thumb, not laws: a run may learn well outside of them, but then it is worth a look.
HEALTHY = {
    "update/approx_kl": Dial(
        "KL", "nats", 0.0, 0.02, "no change", "small steps", "big steps",
        "PPO implementations aim at or warn above 0.01 to 0.02 (Spinning Up's target_kl is 0.01, stop at 1.5 x)",
    ),
    "update/clip_fraction": Dial(
        "Clipped", "share of samples", 0.0, 0.2, "no change", "leash mostly slack", "leash often tight",
        "above a fifth, much of the data has no gradient left: the policy outran what it was measured with",
    ),
    "loss/entropy": Dial(
        "Entropy", "nats", math.nan, math.nan, "hardly explores", "still explores", "no preference yet",
        "log(n) is the coin toss among n actions; below 5 % of it there is next to no exploration. "
        "No such range exists for continuous actions",
    ),
    "update/explained_variance": Dial(
        "Explained var.", "1 is perfect", 0.5, 1.0, "critic guesses", "critic predicts", "",
        "1 - Var(returns - V) / Var(returns): 0 is no better than always the mean; above 0.5 advantages mean something",
        floor=-1.0,
    ),
}  # fmt: skip


def learning_curve(columns: Columns, ax: Axes, total_timesteps: int | None = None) -> None:
    """Mean return of the last 100 episodes over env steps, with a band of one standard deviation.

    columns: "global_step", "episode/return_mean", "episode/return_std", each (updates,); absent ones are no data.
    total_timesteps: the x axis ends there, so that the picture shows how far the run has come.
    """
    _blank(ax)
    step, mean, std = (_column(columns, name) for name in ("global_step", "episode/return_mean", "episode/return_std"))
    _steps_axis(ax, step, total_timesteps)
    ax.set_ylabel("return", color=TEXT, fontsize=8)
    rows = _finite(step, mean)  # (points,)
    if not rows.size:
        ax.yaxis.set_major_locator(NullLocator())
        return _title(ax, "No episode has ended yet", TEXT)
    step, mean, std = step[rows], mean[rows], std[rows]
    ax.yaxis.set_major_locator(MaxNLocator(7))
    ax.fill_between(step, mean - std, mean + std, color=BLUE, alpha=0.18, linewidth=0, label="± 1 std")
    ax.plot(step, mean, color=BLUE, linewidth=1.8, marker=_marker(step), label="mean of the last 100 episodes")
    ax.legend(loc="upper left", fontsize=8, frameon=False, labelcolor=TEXT)
    low, high = float(np.nanmin(mean - np.nan_to_num(std))), float(np.nanmax(mean + np.nan_to_num(std)))
    room = (high - low) or abs(high) or 1.0
    ax.set_ylim(low - 0.05 * room, high + 0.22 * room)  # the legend stands above the curve
    return _title(ax, f"Return {number(mean[-1], digits=3)} ± {number(std[-1])}", TEXT)


def dials(
    columns: Columns,
    axes: Sequence[Axes],
    total_timesteps: int | None = None,
    entropy_range: tuple[float, float] | None = None,
) -> None:
    """KL, clip fraction, entropy and explained variance, one on each of four axes, their healthy range shaded.

    entropy_range: see `entropy_range`; None shades nothing. The title says where the newest values lie.
    """
    for (name, dial), ax in zip(HEALTHY.items(), axes, strict=True):
        if name == "loss/entropy" and entropy_range is not None:
            dial = dial._replace(low=entropy_range[0], high=entropy_range[1])
        _dial(name, dial, columns, ax, total_timesteps)


def entropy_range(num_actions: int | None) -> tuple[float, float] | None:
    """Healthy entropies of a choice among `num_actions`, in nats; None where actions are continuous."""
    if num_actions is None or num_actions < 2:
        return None
    most = math.log(num_actions)
    return 0.05 * most, most


def dashboard_figure(
    columns: Columns,
    total_timesteps: int | None = None,
    num_actions: int | None = None,
    figure: Figure | None = None,
) -> Figure:
    """The learning curve and the four dials in one picture.

    figure: one that this function returned earlier, to draw anew: most of a frame's time goes into making axes.
    """
    figure = figure if figure is not None else _five_axes()
    curve, *four = figure.axes
    learning_curve(columns, curve, total_timesteps)
    dials(columns, four, total_timesteps, entropy_range(num_actions))
    for ax in four[:2]:
        ax.set_xlabel("")  # the one below has it
    return figure


def to_png(figure: Figure, dpi: int = 100, compress_level: int = 6) -> bytes:
    """The figure as PNG. compress_level 1 is faster and twice as big: for frames that are gone in a second."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, pil_kwargs={"compress_level": compress_level})
    return buffer.getvalue()


def style(ax: Axes) -> None:
    """Transparent, grey, and light: for both themes of a notebook."""
    ax.patch.set_alpha(0.0)
    ax.tick_params(colors=TEXT, labelsize=8, length=3)
    ax.grid(color=TEXT, alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
        spine.set_color(TEXT)
        spine.set_visible(side in ("left", "bottom"))


def number(value: float, digits: int = 2) -> str:
    """A number for a title or a tick: this many digits, no exponent where it can be helped."""
    if not math.isfinite(value):
        return "?"
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def steps(value: float, _position: int | None = None) -> str:
    """Env steps for a tick: 800, 50k, 1.5M."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{letter}"
    return f"{value:.4g}"


def _five_axes() -> Figure:
    figure = Figure(figsize=(10.0, 4.2), facecolor="none")
    FigureCanvasAgg(figure)
    # fixed margins: letting matplotlib find them doubles the time of a frame
    grid = figure.add_gridspec(
        2, 3, width_ratios=(1.55, 1, 1), left=0.07, right=0.985, top=0.93, bottom=0.115, hspace=0.5, wspace=0.42
    )
    for place in (grid[:, 0], grid[0, 1], grid[0, 2], grid[1, 1], grid[1, 2]):
        figure.add_subplot(place)
    return figure


def _blank(ax: Axes) -> None:
    """Axes in our style with nothing drawn on them, whether they are new or were used before."""
    legend = ax.get_legend()
    for artist in [*ax.lines, *ax.collections, *ax.patches, *ax.texts, *([legend] if legend else [])]:
        artist.remove()
    ax.set_ylim(0.0, 1.0)
    if ax.patch.get_alpha() != 0.0:
        style(ax)


def _dial(name: str, dial: Dial, columns: Columns, ax: Axes, total_timesteps: int | None) -> None:
    _blank(ax)
    step, value = _column(columns, "global_step"), _column(columns, name)
    _steps_axis(ax, step, total_timesteps)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, digits=3)))
    ax.set_ylabel(dial.unit, color=TEXT, fontsize=8)
    rows = _finite(step, value)  # (points,)
    if not rows.size:
        ax.yaxis.set_major_locator(NullLocator())
        return _title(ax, f"{dial.name}: nothing yet", TEXT)
    step, value = step[rows], value[rows]
    ax.yaxis.set_major_locator(MaxNLocator(4))
    if not math.isnan(dial.low):
        ax.axhspan(dial.low, dial.high, color=GREEN, alpha=0.16, linewidth=0)
    shown = value.clip(min=dial.floor)
    ax.plot(step, shown, color=BLUE, linewidth=1.3, marker=_marker(step))
    _limits(ax, shown, dial)
    now = float(np.median(value[-5:]))  # the title is read, so it may not flicker
    message = dial.above if now > dial.high else dial.below if now < dial.low else dial.inside
    healthy = not now > dial.high and not now < dial.low
    text = f"{dial.name} {number(now)}" + (f": {message}" if message and not math.isnan(dial.low) else "")
    return _title(ax, text, TEXT if healthy else VERMILLION)


def _limits(ax: Axes, shown: np.ndarray, dial: Dial) -> None:
    """Room for the data and for the healthy range."""
    low, high = float(shown.min()), float(shown.max())
    if not math.isnan(dial.low):
        low, high = min(low, dial.low), max(high, dial.high)
    room = (high - low) or abs(high) or 1.0
    ax.set_ylim(low - 0.05 * room, high + 0.08 * room)


def _column(columns: Columns, name: str) -> np.ndarray:
    length = len(columns.get("global_step", ()))
    return np.asarray(columns[name], dtype=float) if name in columns else np.full(length, np.nan)


def _finite(step: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Indices of the points to draw, at most MOST_POINTS, the last one among them."""
    rows = np.flatnonzero(np.isfinite(step) & np.isfinite(value))
    if len(rows) > MOST_POINTS:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_POINTS).round().astype(int)]
    return rows


def _marker(step: np.ndarray) -> str:
    return "." if len(step) < 15 else ""  # a line through one point is not seen


def _steps_axis(ax: Axes, step: np.ndarray, total_timesteps: int | None) -> None:
    end = max([float(step[-1])] if len(step) else [0.0], default=0.0)
    end = max(end, float(total_timesteps or 0)) or 1.0
    ax.set_xlim(0, end)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(FuncFormatter(steps))
    ax.set_xlabel("env steps", color=TEXT, fontsize=8)


def _title(ax: Axes, text: str, color: str) -> None:
    # from the figure's side of the axis labels: a title is wider than a small panel
    ax.annotate(
        text, (0, 1), xytext=(-36, 6), xycoords="axes fraction", textcoords="offset points", color=color, fontsize=9
    )
