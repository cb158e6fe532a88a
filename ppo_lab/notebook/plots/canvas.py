"""Helpers for all plots: colours, axes style, number formats, panels, and conversion to PNG.

Only the object-oriented interface of matplotlib is used: the live dashboard and the user's own cells would share the
global state of pyplot. Backgrounds are transparent and text is grey, so plots are readable in light and dark themes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

Shared = bool | Literal["row", "col"]  # which panels share an axis
Columns = Mapping[str, np.ndarray]  # name -> value at every update, NaN where it was not recorded

TEXT = "#787e88"  # contrast above 4 on white and on JupyterLab's dark page
# based on the palette of Okabe and Ito, which is safe for colour-blind readers; a lighter blue, for dark pages
BLUE, GREEN, VERMILLION = "#2383cc", "#009E73", "#D55E00"
OCHRE = "#BD8B13"
COLORS = (BLUE, VERMILLION, GREEN, "#CC79A7", OCHRE)  # each has a contrast of at least 3 on both pages
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))  # so that runs do not differ in colour only
MOST_POINTS = 1500  # more than a panel has pixels
MOST_NOTES = 8  # changes listed in words
LONGEST_NAME = 28


class JournalLine(Protocol):
    """A line of the journal, as returned by `ppo_lab.read_journal`."""

    @property
    def update(self) -> int: ...  # noqa: D102
    @property
    def global_step(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def old(self) -> Any: ...  # noqa: D102
    @property
    def new(self) -> Any: ...  # noqa: D102


def to_png(figure: Figure, dpi: int = 100, compress_level: int = 6) -> bytes:
    """Encode the figure as PNG.

    compress_level: 1 is faster but doubles the size; use it for live frames, which are replaced soon.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, pil_kwargs={"compress_level": compress_level})
    return buffer.getvalue()


def to_small_png(figure: Figure, dpi: int = 100) -> bytes:
    """Encode the figure as PNG with 256 colours, a third of the size: for pictures that are saved in a notebook."""
    return in_few_colours(Image.open(io.BytesIO(to_png(figure, dpi))).convert("RGBA"))


def in_few_colours(image: Image.Image) -> bytes:
    """Encode an RGBA picture as PNG with a palette of 256 colours; for plots the difference is not visible."""
    buffer = io.BytesIO()
    image.quantize(256, method=Image.Quantize.FASTOCTREE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def style(ax: Axes) -> None:
    """Give axes a transparent background, grey ticks and a thin grid, for light and dark themes."""
    ax.patch.set_alpha(0.0)
    ax.tick_params(colors=TEXT, labelsize=8, length=3)
    ax.grid(color=TEXT, alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
        spine.set_color(TEXT)
        spine.set_visible(side in ("left", "bottom"))


def number(value: float, digits: int = 2) -> str:
    """Format a number for a title or a tick with `digits` significant digits; "?" if it is not finite.

    It has an exponent only below 0.001 and from 100,000 on.
    """
    if not math.isfinite(value):
        return "?"
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text else text


def steps(value: float, _position: int | None = None) -> str:
    """Format env steps for a tick: 800, 50k, 1.5M."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{letter}"
    return f"{value:.4g}"


def percent(share: float) -> str:
    """Format a fraction in [0, 1] as a percentage: 0.25 -> "25 %"."""
    return f"{number(100.0 * share)} %"


def setting(value: Any) -> str:
    """Format the value of a setting, e.g. 0.0003, 100,000 or none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "none" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else number(value)


def short(name: str, longest: int = LONGEST_NAME) -> str:
    """Shorten a name to its first and last characters, where names of runs differ, and escape $ (mathtext)."""
    half = longest // 2
    return (name if len(name) <= longest else f"{name[: half - 1]}…{name[-half:]}").replace("$", r"\$")


def blank(ax: Axes) -> None:
    """Clear axes and apply the style, for new axes as well as for reused ones."""
    for artist in [*ax.lines, *ax.collections, *ax.patches, *ax.texts, *filter(None, [ax.get_legend()])]:
        artist.remove()
    ax.set_ylim(0.0, 1.0)
    if ax.patch.get_alpha() != 0.0:
        style(ax)


def column(columns: Columns, name: str) -> np.ndarray:
    """Return a metric at every update, (updates,); all NaN if the run does not have it."""
    length = len(columns.get("global_step", ()))
    return np.asarray(columns[name], dtype=float) if name in columns else np.full(length, np.nan)


def finite(step: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return the indices of the finite points to draw, at most MOST_POINTS, including the last one."""
    rows = np.flatnonzero(np.isfinite(step) & np.isfinite(value))
    if len(rows) > MOST_POINTS:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_POINTS).round().astype(int)]
    return rows


def points(columns: Columns, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the env steps and values of a metric to draw, (points,) each."""
    step, value = column(columns, "global_step"), column(columns, metric)
    rows = finite(step, value)
    return step[rows], value[rows]


def own(columns: Columns, changes: Sequence[JournalLine]) -> list[JournalLine]:
    """Return the changes made in this run, without those that its journal inherited from the parent."""
    update = np.asarray(columns.get("update", ()))
    first = float(update[0]) if len(update) else -math.inf
    return [change for change in changes if change.update >= first]


def mark(ax: Axes, at: float, text: str, color: str, step: np.ndarray, value: np.ndarray) -> Line2D:
    """Draw a numbered triangle on the curve, (points,), where a change took effect; return the triangle.

    Without a curve it is at the bottom of the axes.
    """
    begun = len(step) > 0
    y = float(np.interp(at, step, value)) if begun else 0.0
    place = ax.transData if begun else ax.get_xaxis_transform()
    (triangle,) = ax.plot(
        [at], [y], color=color, marker="^", markersize=8, markeredgecolor=TEXT, linestyle="none", zorder=3,
        clip_on=False, transform=place,
    )  # fmt: skip
    ax.annotate(
        text, (at, y), xycoords=place, xytext=(0, 6), textcoords="offset points", ha="center", color=TEXT, fontsize=9,
        fontweight="bold",
    )  # fmt: skip
    return triangle


def legend(ax: Axes, notes: Sequence[tuple[Any, str]]) -> None:
    """Place the legend to the right of the axes, where it covers no curve. notes: pairs of an artist and its text."""
    handles, texts = zip(*notes, strict=True)
    ax.legend(
        handles, texts, loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=8, frameon=False, labelcolor=TEXT,
        handlelength=2.6, borderaxespad=0.0,
    )  # fmt: skip


def marker(step: np.ndarray) -> str:
    """Return "." if there are few points, since a line through one point is not visible; otherwise ""."""
    return "." if len(step) < 15 else ""


def steps_axis(ax: Axes, step: np.ndarray, total_timesteps: int | None) -> None:
    """Set the x axis to env steps from 0 to `total_timesteps`, or to 5 times the steps done so far if that is less."""
    done = float(step[-1]) if len(step) else 0.0
    planned = float(total_timesteps or 0)
    end = max(done, min(planned, 5.0 * done) if done else planned) or 1.0
    ax.set_xlim(0, end)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(FuncFormatter(steps))
    ax.set_xlabel("env steps", color=TEXT, fontsize=8)


def spread(values: np.ndarray) -> tuple[float, float]:
    """Return axis limits that contain nearly all finite values (quantiles 0.3 % to 99.7 %, with a margin)."""
    known = np.asarray(values, dtype=float)[np.isfinite(values)]
    low, high = map(float, np.quantile(known, (0.003, 0.997))) if known.size else (0.0, 0.0)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def dots(ax: Axes, x: np.ndarray, y: np.ndarray, color: str) -> None:
    """Draw a scatter plot of x and y, (points,) each; up to 100 dots are drawn larger."""
    size = 2.4 if len(x) > 100 else 4.5
    ax.plot(x, y, color=color, linestyle="none", marker="o", markersize=size, markeredgewidth=0, alpha=0.6)


def numbers(axis: Axis, most: int = 4) -> None:
    """Format the ticks as short numbers, in at most `most` intervals."""
    axis.set_major_locator(MaxNLocator(most))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value, digits=3)))


def staircase(ax: Axes, values: np.ndarray, edges: np.ndarray, baseline: Any, color: Any) -> None:
    """Fill the area between the steps of values, (n,), over edges, (n + 1,), and the baseline, a number or (n,)."""
    # not ax.stairs: it computes the extent of every segment, which takes longer than the drawing
    ax.add_artist(StepPatch(values, edges, baseline=baseline, fill=True, color=color, linewidth=0))


def title(ax: Axes, text: str, color: str = TEXT) -> None:
    """Write the title of a panel above it."""
    # starts left of the axes: a title can be wider than a small panel
    ax.annotate(
        text, (0, 1), xytext=(-36, 6), xycoords="axes fraction", textcoords="offset points", color=color, fontsize=9
    )


def panels(
    rows: int, columns: int, height: float, sharex: Shared = False, sharey: Shared = False
) -> tuple[Figure, list[Axes]]:
    """Create a transparent figure with rows x columns axes; height is in inches. Return the axes row by row."""
    figure = Figure(figsize=(8.4, height), facecolor="none", layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False).flat)
    for ax in axes:
        style(ax)
    return figure, axes


def label(ax: Axes, title: str, xlabel: str, ylabel: str | None = None) -> None:
    """Set the title and the axis labels of a panel made by `panels`."""
    ax.set_title(title, loc="left", color=TEXT, fontsize=9)
    ax.set_xlabel(xlabel, color=TEXT, fontsize=8)
    if ylabel is not None:
        ax.set_ylabel(ylabel, color=TEXT, fontsize=8)
