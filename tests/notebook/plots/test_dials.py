"""Pictures: everything is inside the picture, says what it shows, and is small."""

import re
from itertools import combinations

import numpy as np
import pytest

from ppo_lab.notebook import plots
from ppo_lab.notebook.plots.canvas import MOST_POINTS, TEXT
from tests.notebook.fakes import columns

CASES = {
    "none": {},
    "one": columns(1),
    "few": columns(4),
    "many": columns(300),
    "more than pixels": columns(5000),
    "large steps": columns(40, steps=25_000_000),
    "negative returns": {**columns(50), "episode/return_mean": np.linspace(-1500.0, -150.0, 50)},
    "tiny values": {**columns(50), "update/approx_kl": np.linspace(1e-6, 9e-6, 50)},
    "all far out": {
        **columns(50),
        "update/approx_kl": np.full(50, 1.2345),
        "update/clip_fraction": np.full(50, 0.987),
        "loss/entropy": np.full(50, -12.34),
        "update/explained_variance": np.full(50, -1234.5),
    },
    "only NaN": {name: values * (1 if name == "global_step" else np.nan) for name, values in columns(20).items()},
}


def texts(figure):
    """Every visible text of a drawn figure with the box it fills, in pixels."""
    figure.canvas.draw()
    found = []
    for ax in figure.axes:
        ticks = [
            tick.label1
            for axis in (ax.xaxis, ax.yaxis)
            for tick in axis.get_major_ticks()
            if min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        ]
        found += [*ax.texts, ax.xaxis.label, ax.yaxis.label, *ticks]
    return [(text.get_text(), text.get_window_extent()) for text in found if text.get_text() and text.get_visible()]


def inside(figure, box):
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height


@pytest.mark.parametrize("case", CASES)
def test_everything_is_labelled_inside_and_small(case):
    figure = plots.dashboard_figure(CASES[case], 150_000, num_actions=2)
    units = ["return", "nats", "share of samples", "nats", "1 is perfect"]
    assert [ax.get_ylabel() for ax in figure.axes] == units
    assert [ax.get_xlabel() for ax in figure.axes] == ["env steps", "", "", "env steps", "env steps"]
    assert all(ax.texts[0].get_text() for ax in figure.axes)

    for text, box in texts(figure):
        assert inside(figure, box), f"{text!r} at {box} leaves the picture"
    titles = [ax.texts[0].get_window_extent() for ax in figure.axes]
    assert not any(one.overlaps(other) for one, other in combinations(titles, 2))

    png = plots.to_png(figure)
    assert png.startswith(b"\x89PNG")
    assert len(png) < 150_000


def test_a_figure_drawn_anew_equals_a_new_one():
    figure = plots.dashboard_figure(CASES["none"], 300_000, 2)
    for case in ("few", "all far out", "only NaN", "many"):
        figure = plots.dashboard_figure(CASES[case], 300_000, 2, figure)
        assert plots.to_png(figure) == plots.to_png(plots.dashboard_figure(CASES[case], 300_000, 2)), case


def test_the_curve_shows_the_numbers():
    ax = plots.dashboard_figure(columns(50)).axes[0]
    (line,) = ax.lines
    known = columns(50)
    np.testing.assert_array_equal(line.get_xdata(), known["global_step"][1:])  # update 1 had no episode
    np.testing.assert_array_equal(line.get_ydata(), known["episode/return_mean"][1:])
    assert ax.texts[0].get_text().startswith(f"Return {known['episode/return_mean'][-1]:.3g}")


def test_decimation_keeps_the_last_point():
    line = plots.dashboard_figure(columns(5000)).axes[0].lines[0]
    assert len(line.get_xdata()) == MOST_POINTS
    assert line.get_xdata()[-1] == 5000 * 1024


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("update/approx_kl", 0.01, "small steps"),
        ("update/approx_kl", 0.05, "big steps"),
        ("update/clip_fraction", 0.1, "slack"),
        ("update/clip_fraction", 0.5, "tight"),
        ("loss/entropy", 0.6, "still explores"),
        ("loss/entropy", 0.01, "hardly explores"),
        ("update/explained_variance", 0.9, "predicts"),
        ("update/explained_variance", 0.1, "guesses"),
    ],
)
def test_a_dial_says_where_the_newest_values_lie(name, value, says):
    history = {**columns(30), name: np.full(30, value)}
    title = plots.dashboard_figure(history, num_actions=2).axes[1 + list(plots.HEALTHY).index(name)].texts[0]
    assert says in title.get_text()
    low, high = plots.entropy_range(2) if name == "loss/entropy" else plots.HEALTHY[name][2:4]
    assert (title.get_color() == TEXT) == (low <= value <= high)


def test_continuous_actions_have_no_entropy_range():
    assert plots.entropy_range(None) is None
    ax = plots.dashboard_figure({**columns(30), "loss/entropy": np.full(30, -2.0)}).axes[3]
    assert not ax.patches
    assert ax.texts[0].get_text() == "Entropy -2"
    assert ax.texts[0].get_color() == TEXT


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (800, "800"), (50_000, "50k"), (1_500_000, "1.5M"), (3e9, "3G")],
)
def test_step_ticks_are_short(value, text):
    assert plots.steps(value) == text


def test_pyplot_is_never_touched(root):
    for path in (root / "ppo_lab").rglob("*.py"):
        assert not re.search(r"import.*\bpyplot\b", path.read_text()), path
