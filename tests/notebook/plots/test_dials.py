"""Dials and learning curve: texts fit into the picture, titles are right, and the data are drawn unchanged."""

import re

import numpy as np
import pytest

from ppo_lab.notebook import plots
from ppo_lab.notebook.plots.canvas import MOST_POINTS, TEXT, VERMILLION
from ppo_lab.notebook.plots.dials import MORE
from tests.notebook.fakes import columns as fake_columns
from tests.notebook.plots import layout


def columns(updates, steps=1024):
    rng = np.random.default_rng(updates)
    return {
        **fake_columns(updates, steps),
        "update/grad_norm": rng.exponential(0.5, updates),
        "loss/policy": rng.normal(-0.01, 0.01, updates),
        "loss/value": 300 * np.linspace(1, 0.1, updates),
        "update/learning_rate": 3e-4 * np.linspace(1, 0, updates),
    }


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
        "update/grad_norm": np.full(50, 123456.7),
        "loss/policy": np.full(50, -123.456),
        "loss/value": np.full(50, 1.23e12),
        "update/learning_rate": np.full(50, 2.5e-4),
    },
    "only NaN": {name: values * (1 if name == "global_step" else np.nan) for name, values in columns(20).items()},
}


@pytest.mark.parametrize("case", CASES)
def test_everything_is_labelled_inside_and_small(case):
    figure = plots.dashboard_figure(CASES[case], 150_000, num_actions=2)
    units = ["return", "nats", "share of samples", "nats", "1 is perfect"]
    assert [ax.get_ylabel() for ax in figure.axes] == units
    assert [ax.get_xlabel() for ax in figure.axes] == ["env steps", "", "", "env steps", "env steps"]
    assert all(ax.texts[0].get_text() for ax in figure.axes)

    layout.check(figure)

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
        ("update/clip_fraction", 0.1, "small share"),
        ("update/clip_fraction", 0.5, "large share"),
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


@pytest.mark.parametrize("case", CASES)
def test_eight_dials_are_labelled_inside_and_apart(case):
    figure = plots.dials_figure(CASES[case], 150_000, 2, 0.01, 0.5)
    units = [dial.unit for dial in [*plots.HEALTHY.values(), *MORE.values()]]
    assert [ax.get_ylabel() for ax in figure.axes] == units
    assert [ax.get_xlabel() for ax in figure.axes] == [""] * 4 + ["env steps"] * 4
    layout.check(figure)
    assert len(plots.to_png(figure)) < 150_000


def test_eight_dials_drawn_anew_equal_new_ones():
    figure = None
    for case, settings in (
        ("few", (2, 0.01, 0.5)),
        ("all far out", (None, None, None)),
        ("only NaN", (2,)),
        ("many", ()),
    ):
        figure = plots.dials_figure(CASES[case], 300_000, *settings, figure=figure)
        assert plots.to_png(figure) == plots.to_png(plots.dials_figure(CASES[case], 300_000, *settings)), case


def test_eight_dials_show_the_numbers():
    known = columns(50)
    names = [*plots.HEALTHY, *MORE]
    for name, ax in zip(names, plots.dials_figure(known).axes, strict=True):
        line = ax.lines[-1]
        np.testing.assert_array_equal(line.get_xdata(), known["global_step"])
        floor = -1.0 if name == "update/explained_variance" else -np.inf
        np.testing.assert_array_equal(line.get_ydata(), known[name].clip(floor))
        assert f" {plots.number(np.median(known[name][-5:]))}" in ax.texts[0].get_text()


def test_target_kl_ends_the_range_where_the_update_stops():
    history = {**columns(30), "update/approx_kl": np.full(30, 0.04)}
    for target, color in ((None, VERMILLION), (0.03, TEXT), (0.02, VERMILLION)):
        ax = plots.dials_figure(history, target_kl=target).axes[0]
        assert ax.texts[0].get_color() == color
        range_ = ax.patches[0].get_extents().transformed(ax.transData.inverted())
        assert (range_.y0, range_.y1) == pytest.approx((0.0, 0.02 if target is None else 1.5 * target))


@pytest.mark.parametrize(("norm", "says"), [(0.2, "0.2: below 0.5"), (0.7, "0.7: cut to 0.5")])
def test_gradients_are_held_against_their_limit(norm, says):
    history = {**columns(30), "update/grad_norm": np.full(30, norm)}
    ax = plots.dials_figure(history, max_grad_norm=0.5).axes[4]
    assert ax.texts[0].get_text() == f"Gradient norm {says}"
    assert ax.texts[0].get_color() == TEXT
    assert [line.get_ydata() for line in ax.lines if line.get_linestyle() == "--"] == [[0.5, 0.5]]
    assert ax.get_ylim()[0] < min(norm, 0.5) < max(norm, 0.5) < ax.get_ylim()[1]
    assert len(plots.dials_figure(history).axes[4].lines) == 1


@pytest.mark.parametrize(
    ("value", "says"),
    [(np.linspace(300, 10, 40), "falling"), (np.full(40, 7.0), "steady"), (np.linspace(1, 90, 40), "rising"),
     (np.zeros(40), "steady"), (np.array([3.0]), "steady")],
)  # fmt: skip
def test_value_loss_and_learning_rate_say_where_they_go(value, says):
    history = {**columns(len(value)), "loss/value": value, "update/learning_rate": value * 1e-4}
    for ax in plots.dials_figure(history).axes[6:]:
        assert ax.texts[0].get_text().endswith(f": {says}")


def test_a_spike_does_not_flatten_the_rest():
    value = np.linspace(100.0, 50.0, 60)
    value[3] = 1e6
    assert 100 < plots.dials_figure({**columns(60), "loss/value": value}).axes[6].get_ylim()[1] < 300
    value[-1] = 1e6  # but the newest values are in sight
    assert plots.dials_figure({**columns(60), "loss/value": value}).axes[6].get_ylim()[1] > 1e6


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(99.9, 2, "100"), (999.6, 3, "1000"), (0.123, 2, "0.12"), (-1234.5, 2, "-1234"), (9.96e-4, 2, "1e-3"),
     (0.0, 2, "0"), (123456.0, 2, "1.2e5"), (0.00996, 2, "0.01")],
)  # fmt: skip
def test_numbers_are_short(value, digits, text):
    assert plots.number(value, digits) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (800, "800"), (50_000, "50k"), (1_500_000, "1.5M"), (3e9, "3G")],
)
def test_step_ticks_are_short(value, text):
    assert plots.steps(value) == text


def test_pyplot_is_never_touched(root):
    for path in (root / "ppo_lab").rglob("*.py"):
        assert not re.search(r"import.*\bpyplot\b", path.read_text()), path
