"""What every picture shares: colours, style, numbers and axes that read on a light and on a dark page.

Object-oriented matplotlib only: pyplot is one global that a live dashboard and the reader's own cells would share.
Patches are transparent and text is grey, so a picture reads on both themes of a notebook.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

Columns = Mapping[str, np.ndarray]  # name -> value at every update, NaN where there was none

TEXT = "#787e88"  # contrast above 4 on white and on JupyterLab's dark page
# after the palette of Okabe and Ito, which the colour-blind tell apart; the blue is lighter, for dark pages
BLUE, GREEN, VERMILLION = "#2383cc", "#009E73", "#D55E00"
MOST_POINTS = 1500  # more than a panel has pixels


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


def blank(ax: Axes) -> None:
    """Axes in our style with nothing drawn on them, whether they are new or were used before."""
    legend = ax.get_legend()
    for artist in [*ax.lines, *ax.collections, *ax.patches, *ax.texts, *([legend] if legend else [])]:
        artist.remove()
    ax.set_ylim(0.0, 1.0)
    if ax.patch.get_alpha() != 0.0:
        style(ax)


def column(columns: Columns, name: str) -> np.ndarray:
    """A metric at every update, (updates,); NaN where the run has none."""
    length = len(columns.get("global_step", ()))
    return np.asarray(columns[name], dtype=float) if name in columns else np.full(length, np.nan)


def finite(step: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Indices of the points to draw, at most MOST_POINTS, the last one among them."""
    rows = np.flatnonzero(np.isfinite(step) & np.isfinite(value))
    if len(rows) > MOST_POINTS:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_POINTS).round().astype(int)]
    return rows


def marker(step: np.ndarray) -> str:
    """Dots where points are few: a line through one point is not seen."""
    return "." if len(step) < 15 else ""


def steps_axis(ax: Axes, step: np.ndarray, total_timesteps: int | None) -> None:
    """Env steps from 0 to the end of the run."""
    end = max([float(step[-1])] if len(step) else [0.0], default=0.0)
    end = max(end, float(total_timesteps or 0)) or 1.0
    ax.set_xlim(0, end)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(FuncFormatter(steps))
    ax.set_xlabel("env steps", color=TEXT, fontsize=8)


def title(ax: Axes, text: str, color: str = TEXT) -> None:
    """What the panel says, above it."""
    # from the figure's side of the axis labels: a title is wider than a small panel
    ax.annotate(
        text, (0, 1), xytext=(-36, 6), xycoords="axes fraction", textcoords="offset points", color=color, fontsize=9
    )
