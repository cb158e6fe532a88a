"""Plots of drives and their costs: the data are drawn unchanged, and all texts fit into the picture."""

import numpy as np
import pytest

from ppo_lab.notebook import plots

rng = np.random.default_rng(1)
TARGET = np.sin(np.arange(550) / 30)
LATACCEL = {"a-run-with-a-rather-long-name-of-its-own-2": TARGET + 0.1, "pid": TARGET - 0.3}
STEERING = {name: np.arange(550) * 1e-3 for name in LATACCEL}
PID = np.exp(rng.normal(4.3, 0.7, 100))
FIGURES = {
    "drive": lambda: plots.drive_figure(TARGET, LATACCEL, STEERING, "data/00000.csv"),
    "costs": lambda: plots.costs_figure({"ppo": PID * np.where(np.arange(100) < 80, 0.6, 1.5), "pid": PID}),
    "alike": lambda: plots.costs_figure({"ppo": PID[:3] * 0 + 80, "pid": PID[:3] * 0 + 90}, "surrogate_cost"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_everything_is_labelled_inside_and_small(name):
    figure = FIGURES[name]()
    assert len(plots.to_png(figure)) < 200_000
    for ax in figure.axes:
        box = ax.get_tightbbox()  # of titles, labels, ticks and legend too
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
        assert ax.get_title(loc="left")
        assert ax.get_ylabel()
        ticks = [text.get_text() for text in ax.get_xticklabels() if text.get_text()]
        assert len(ticks) > 1 or ax.get_xlabel() == ""


def test_a_drive_is_shown_where_it_counts():
    figure = FIGURES["drive"]()
    above, below = figure.axes
    assert [len(line.get_xdata()) for line in above.lines] == [400, 400, 400]
    for line, rows in zip(above.lines, [TARGET, *LATACCEL.values()], strict=True):
        np.testing.assert_array_equal(line.get_ydata(), rows[100:500])
    assert (above.lines[0].get_xdata()[0], above.lines[0].get_xdata()[-1]) == pytest.approx((10.0, 49.9))
    assert above.get_title(loc="left").endswith("0.1, pid 0.3")  # each is off by the same everywhere
    assert below.get_title(loc="left").endswith("0.001, pid 0.001")
    assert "m/s²" in above.get_ylabel()
    assert below.get_xlabel() == "time (s)"


def test_costs_are_counted_whole_and_paired():
    figure = FIGURES["costs"]()
    left, right = figure.axes
    assert right.get_title(loc="left") == "ppo costs less on 80 of 100 segments"
    assert left.get_title(loc="left").endswith(f"pid {plots.number(float(np.median(PID)), 3)}")
    np.testing.assert_array_equal(right.lines[0].get_xdata(), PID)
    for outline in left.patches:  # each step twice, and both ends
        assert outline.get_xy()[:, 0].min() <= PID.min() * 1.5
    assert left.get_xscale() == "log"


def test_the_cost_has_the_name_it_was_given():
    left, right = FIGURES["alike"]().axes
    assert left.get_xlabel() == "surrogate_cost"
    assert right.get_xlabel() == "surrogate_cost of pid"
    assert right.get_ylabel() == "surrogate_cost of ppo"
