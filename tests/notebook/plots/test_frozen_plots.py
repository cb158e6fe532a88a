"""Plots of a single update: the data are drawn unchanged, and all texts fit into the picture."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba

from ppo_lab.notebook.data.frozen_rollout import SurrogateSteps
from ppo_lab.notebook.plots import frozen as pictures
from ppo_lab.notebook.plots.canvas import BLUE, VERMILLION, to_png

T, N, S = 20, 3, 8
RNG = np.random.default_rng(0)


def ends():
    """Return a rollout: one environment terminates at 4, another is truncated at 11, the third continues."""
    terminated, done = np.zeros((2, T, N), dtype=bool)
    terminated[4, 0] = done[4, 0] = done[11, 1] = True
    return terminated, done


def surrogate(clip_coef=0.2):
    advantage = RNG.normal(size=200).astype(np.float32)
    ratio = np.exp(np.linspace(0, 0.4, S + 1)[:, None] * RNG.normal(size=(S + 1, 200))).astype(np.float32)
    gains = ratio * advantage, ratio.clip(1 - clip_coef, 1 + clip_coef) * advantage
    stopped = ((advantage > 0) & (ratio > 1 + clip_coef)) | ((advantage < 0) & (ratio < 1 - clip_coef))
    return SurrogateSteps(clip_coef, ratio, advantage, np.minimum(*gains).mean(1), gains[0].mean(1), stopped)


def check_inside(figure):
    """Assert that titles, labels and ticks are inside the picture."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for ax in figure.axes:
        texts = [ax.xaxis.label, ax.yaxis.label, ax.title, ax._left_title, *ax.texts]
        for text in [text for text in texts if text.get_text()]:
            box = text.get_window_extent(renderer)
            assert box.x0 >= 0, text
            assert box.y0 >= 0, text
            assert box.x1 <= figure.bbox.x1, text
            assert box.y1 <= figure.bbox.y1, text
    assert len(to_png(figure)) < 100_000
    assert figure.get_facecolor()[3] == 0


def colors_of(ax, values):
    (image,) = ax.images
    return image.cmap(image.norm(np.asarray(values, dtype=float)))


def test_a_rollout_is_a_row_an_environment():
    terminated, done = ends()
    panels = {"value": RNG.random((T, N)) + 1, "advantage": RNG.normal(size=(T, N))}
    figure = pictures.rollout_figure(panels, terminated, done)
    check_inside(figure)
    for ax, (name, panel) in zip(figure.axes, panels.items(), strict=False):
        assert ax.get_title(loc="left") == name
        np.testing.assert_array_equal(ax.images[0].get_array(), panel.T)
        marks = [line for line in ax.lines if len(line.get_xdata())]
        assert [(line.get_marker(), *line.get_xydata()[0]) for line in marks] == [("x", 4, 0), ("o", 11, 1)]
        assert ax.get_ylim()[0] > ax.get_ylim()[1]  # environment 0 on top


def test_numbers_of_both_signs_have_two_colours_and_zero_has_that_of_the_page():
    figure = pictures.rollout_figure({"advantage": RNG.normal(size=(T, N))}, *ends())
    low, zero, high = colors_of(figure.axes[0], [-9, 0, 9])
    np.testing.assert_allclose(low, to_rgba(VERMILLION))
    np.testing.assert_allclose(high, to_rgba(BLUE))
    assert zero[3] < 0.02


@pytest.mark.parametrize("panel", [np.ones((T, N)), np.zeros((T, N)), -np.ones((T, N)), np.eye(T, N) * 1e9])
def test_any_numbers_can_be_drawn(panel):
    figure = pictures.rollout_figure({"reward": panel}, *ends())
    check_inside(figure)
    constant = panel.min() == panel.max()
    assert figure.axes[1].get_visible() == (not constant)  # the bar
    assert figure.axes[0].get_title(loc="left") == (f"reward: {panel.max():g} everywhere" if constant else "reward")
    if panel.min() == 1:
        assert colors_of(figure.axes[0], [1.0])[0, 3] > 0.9


def test_gaps_are_empty():
    panel = RNG.normal(size=(T, N))
    panel[3, 1] = np.nan
    figure = pictures.rollout_figure({"advantage": panel}, *ends())
    image = figure.axes[0].images[0]
    assert image.to_rgba(image.get_array())[1, 3, 3] == 0
    reach = np.abs(np.nanpercentile(panel, (1, 99))).max()
    assert image.get_clim() == pytest.approx((-reach, reach))


def course(n=0, scale=1.0):
    terminated, done = ends()
    value = scale * np.linspace(5, 8, T)
    advantage = scale * RNG.normal(size=T)
    return value, value + advantage, advantage, terminated[:, n], done[:, n]


def test_a_course_is_the_numbers_of_one_environment():
    value, returns, advantage, terminated, done = course()
    figure = pictures.course_figure(value, returns, advantage, terminated, done, "a heading")
    check_inside(figure)
    top, bottom = figure.axes
    for line, expected in zip(top.lines, (value, returns), strict=False):
        y = line.get_ydata()
        np.testing.assert_array_equal(y[~np.isnan(y)], expected)
        assert np.flatnonzero(np.isnan(y)).tolist() == [5]  # the line stops where the episode ended
    (bars,) = [collection for collection in bottom.collections if isinstance(collection, LineCollection)]
    np.testing.assert_allclose([segment[1][1] for segment in bars.get_segments()], advantage)
    np.testing.assert_allclose(bars.get_colors()[advantage < 0][0], to_rgba(VERMILLION))
    np.testing.assert_allclose(bars.get_colors()[advantage > 0][0], to_rgba(BLUE))
    assert top.get_title(loc="left") == "a heading"


def test_there_is_room_for_a_heading_beside_the_legend():
    figure = pictures.course_figure(*course(), "Game 14. All games: spread 0.88, explained variance -0.99")
    figure.canvas.draw()
    top = figure.axes[0]
    assert not top._left_title.get_window_extent().overlaps(top.get_legend().get_window_extent())


@pytest.mark.parametrize(("n", "words", "style"), [(0, ["terminated"], "-"), (1, ["truncated"], "--"), (2, [], None)])
def test_how_an_episode_ended_is_said(n, words, style):
    figure = pictures.course_figure(*course(n))
    assert [text.get_text() for text in figure.axes[1].texts] == words
    upright = [line for line in figure.axes[1].lines if len(set(line.get_xdata())) == 1]
    assert [line.get_linestyle() for line in upright] == ([style] if style else [])


@pytest.mark.parametrize("scale", [0.0, 1e-6, 0.3, 1e6, -1.0])
def test_scales_hold_still_and_hold_everything(scale):
    figure = pictures.course_figure(*course(scale=scale))
    check_inside(figure)
    for ax, series in zip(figure.axes, ([0, 1], [2]), strict=True):
        numbers = np.concatenate([course_part for i, course_part in enumerate(course(scale=scale)) if i in series])
        if len(series) == 2:
            assert ax.get_ylim()[0] <= numbers.min() + 1e-9


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 1), (-3, 1), (0.21, 0.3), (1, 1), (1.01, 1.5), (7.6, 10), (34, 50)]
)
def test_rounder_numbers(value, expected):
    assert pictures._round_up(value) == pytest.approx(expected)


def test_drift_shows_percentiles_and_says_how_many_are_outside():
    ratio = surrogate().ratio
    figure = pictures.drift_figure(ratio, clip_coef=0.2, steps_per_epoch=4)
    check_inside(figure)
    (ax,) = figure.axes
    outermost = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert outermost.max() == pytest.approx(np.percentile(ratio, 99, axis=1).max())
    assert outermost.min() == pytest.approx(np.percentile(ratio, 1, axis=1).min())
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.median(ratio, axis=1))
    assert [line.get_ydata()[0] for line in ax.lines[1:3]] == [0.8, 1.2]
    outside = np.mean(np.abs(ratio[-1] - 1) > 0.2)
    assert ax.get_title(loc="left") == f"After {S} steps {outside:.0%} of the ratios are outside 1 ± 0.2"


def test_minibatches_are_drawn_in_order_with_a_line_at_every_pass():
    columns = [RNG.random(S), np.zeros(S), 30 * RNG.random(S)]
    figure = pictures.minibatch_figure(*columns, max_grad_norm=0.5, steps_per_epoch=4)
    check_inside(figure)
    for ax, column in zip(figure.axes, columns, strict=True):
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), column)
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), np.arange(1, S + 1))
        assert [line.get_xdata()[0] for line in ax.lines[1:2]] == [4.5]
        assert ax.get_ylim()[0] == 0
    assert figure.axes[2].lines[-1].get_ydata()[0] == 0.5


def test_an_update_of_one_step_can_be_drawn():
    one = np.array([0.1])
    check_inside(pictures.minibatch_figure(one, one, one, max_grad_norm=0.5, steps_per_epoch=1))
    check_inside(pictures.drift_figure(np.ones((2, 5)), clip_coef=0.2, steps_per_epoch=1))


@pytest.mark.parametrize("steps_taken", [0, 3, S])
def test_stopped_samples_are_the_ones_in_the_shaded_corners(steps_taken):
    made_of = surrogate()
    figure = pictures.surrogate_figure(made_of, steps_taken)
    check_inside(figure)
    dots, curve = figure.axes
    going, stopped = dots.lines[:2]
    assert len(stopped.get_xdata()) == made_of.stopped[steps_taken].sum()
    assert len(going.get_xdata()) + len(stopped.get_xdata()) == len(made_of.advantage)
    corners = [collection.get_paths()[0] for collection in dots.collections]
    inside = [any(corner.contains_point(point, radius=1e-6) for corner in corners) for point in stopped.get_xydata()]
    assert all(inside)
    assert not any(corner.contains_point(point, radius=-1e-6) for corner in corners for point in going.get_xydata())
    assert dots.get_title(loc="left").startswith(f"{made_of.stopped[steps_taken].mean():.1%} of the samples")
    np.testing.assert_array_equal(curve.lines[0].get_ydata(), made_of.unclipped)
    np.testing.assert_array_equal(curve.lines[1].get_ydata(), made_of.objective)
    assert tuple(curve.lines[2].get_xydata()[0]) == (steps_taken, made_of.objective[steps_taken])


def test_a_policy_that_has_not_moved_can_be_drawn():
    ones, advantage = np.ones((1, 50), np.float32), RNG.normal(size=50)
    still = SurrogateSteps(0.2, ones, advantage, np.zeros(1), np.zeros(1), np.zeros((1, 50), bool))
    check_inside(pictures.surrogate_figure(still, 0))
    check_inside(pictures.surrogate_figure(surrogate(5.0), S))  # a clip range wider than the picture


def test_an_advantage_far_out_is_at_the_edge():
    ones, advantage = np.ones((1, 200), np.float32), np.concatenate([np.linspace(-1, 1, 198), [-40, 70]])
    still = SurrogateSteps(0.2, ones, advantage, np.zeros(1), np.zeros(1), np.zeros((1, 200), bool))
    dots = pictures.surrogate_figure(still, 0).axes[0]
    low, high = dots.get_ylim()
    drawn = dots.lines[0].get_ydata()
    assert low < drawn.min()
    assert drawn.max() < high < 3
    assert dots.get_ylabel() == "advantage in the loss (cut at ±1)"


def test_pyplot_is_not_touched():
    code = (
        "import sys, numpy as np; from ppo_lab.notebook.plots import frozen as f;"
        "f.rollout_figure({'x': np.ones((2, 2))}, *np.zeros((2, 2, 2), bool)).canvas.draw();"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
