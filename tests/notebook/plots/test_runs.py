"""Plots of several runs: the data are drawn unchanged, and all texts fit into the picture."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ppo_lab.notebook.plots import runs as plots_runs
from ppo_lab.notebook.plots.canvas import TEXT, to_png
from ppo_lab.runs import Change, RunSummary
from tests.notebook.fakes import columns

TREE = [
    ("root", None, None, 100_000),
    ("early", "root", 20_000, 60_000),
    ("grandchild", "early", 40_000, 130_000),
    ("late", "root", 80_000, 95_000),
    ("orphan", "gone", 50_000, 70_000),
]
LONG = "a-name-of-a-run-that-somebody-made-much-too-long-1"
CASES = {
    "none": [],
    "one that has not begun": [("new", None, None, 0)],
    "tree": TREE,
    "not trained since the fork": [("a", None, None, 5_000), ("b", "a", 5_000, 5_000)],
    "children first": TREE[::-1],
    "long names": [(LONG, None, None, 10), (LONG + "1", LONG, 5, 2_000_000_000), ("$x_1$", "a$b", 5, 10)],
    "many": [(f"run-{i}", f"run-{i - 1}" if i % 3 else None, i * 10 if i % 3 else None, 500) for i in range(25)],
    "each other's child": [("a", "b", 10, 20), ("b", "a", 10, 20), ("c", "c", 5, 9)],
}


def tree_of(case):
    figure, ax = plots_runs.new_figure(len(case))
    plots_runs.plot_lineage(case, ax)
    figure.canvas.draw()
    return figure, ax


def horizontal(ax):
    """Return (row, from, to) of every solid horizontal line longer than a point."""
    lines = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    return [
        (line.get_ydata()[0], *line.get_xdata())
        for line in lines
        if line.get_ydata()[0] == line.get_ydata()[1] and line.get_xdata()[0] != line.get_xdata()[1]
    ]


def vertical(ax):
    """Return (x, from row, to row) of every connector."""
    lines = [line for line in ax.lines if len(line.get_xdata()) == 2]
    return [
        (line.get_xdata()[0], *line.get_ydata())
        for line in lines
        if line.get_xdata()[0] == line.get_xdata()[1] and line.get_ydata()[0] != line.get_ydata()[1]
    ]


def rows_of(ax):
    return {
        text.get_text().split("\n")[0]: row for text, row in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)
    }


def test_every_run_is_a_line_from_where_it_began_to_where_it_is_hung_on_its_parent():
    _, ax = tree_of(TREE)
    rows = rows_of(ax)
    assert set(horizontal(ax)) == {(rows[name], forked_at or 0, steps) for name, _, forked_at, steps in TREE}
    assert set(vertical(ax)) == {(at, rows[parent], rows[name]) for name, parent, at, _ in TREE if parent in rows}
    dotted = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert [(*line.get_xdata(), line.get_ydata()[0]) for line in dotted] == [(0, 50_000, rows["orphan"])]
    assert ax.get_title(loc="left") == "5 runs"


@pytest.mark.parametrize("case", ["tree", "children first", "many"])
def test_no_connector_crosses_the_line_of_another_run(case):
    _, ax = tree_of(CASES[case])
    for x, top, bottom in vertical(ax):
        assert top < bottom, "a fork hangs below its parent"
        for row, begin, end in horizontal(ax):
            assert not (top < row < bottom and begin < x < end)


def test_a_table_of_runs_can_be_given_as_it_is():
    table = [RunSummary(name, "env", steps, 10**6, None, "stopped", parent, at) for name, parent, at, steps in TREE]
    assert to_png(tree_of(table)[0]) == to_png(tree_of(TREE)[0])


@pytest.mark.parametrize("case", CASES)
def test_all_of_a_tree_is_inside_the_picture(case):
    figure, ax = tree_of(CASES[case])
    assert len(ax.get_yticks()) == len(CASES[case])
    check_inside(figure, [*ax.get_yticklabels(), ax.xaxis.label, ax._left_title])
    boxes = [text.get_window_extent() for text in ax.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def check_inside(figure, texts):
    for text in texts:
        box = text.get_window_extent()
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert inside or not text.get_text(), f"{text.get_text()!r} at {box} leaves the picture"


def change(update, key="learning_rate", old=0.003, new=0.1):
    return Change(update, (update - 1) * 1024, key, old, new, "code")


def since(update):
    """Return the columns of a fork: those of a run without its first updates."""
    return {name: values[update:] for name, values in columns(60).items()}


def runs_of(*arguments, **options):
    figure, ax = plots_runs.new_figure(10 if len(arguments[0]) < 8 else 18)
    plots_runs.plot_runs(*arguments, ax, **options)
    figure.canvas.draw()
    legend = ax.get_legend()
    return figure, ax, [text.get_text() for text in legend.get_texts()] if legend else []


def test_the_curves_are_the_data_and_differ_in_color_and_dashes():
    data = {"a": columns(60), "b": since(30), "c": columns(7)}
    _, ax, names = runs_of(data)
    assert names == list(data)
    for line, run in zip(ax.lines, data.values(), strict=True):
        known = np.isfinite(run["episode/return_mean"])
        np.testing.assert_array_equal(line.get_xdata(), run["global_step"][known])
        np.testing.assert_array_equal(line.get_ydata(), run["episode/return_mean"][known])
    assert len({line.get_color() for line in ax.lines}) == len({str(line._dash_pattern) for line in ax.lines}) == 3


def test_another_metric_can_be_drawn():
    _, ax, _ = runs_of({"a": columns(60)}, metric="loss/entropy", ylabel="entropy (nats)")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), columns(60)["loss/entropy"])
    assert ax.get_ylabel() == "entropy (nats)"


def test_changes_are_triangles_on_the_curve_and_written_out():
    made = [change(31), change(41, "ent_coef", 0.0, None), change(51, "total_timesteps", 100_000, 200_000)]
    _, ax, texts = runs_of({"a": columns(60)}, changes_by_name={"a": made})
    marks = [line for line in ax.lines if line.get_marker() == "^"]
    assert [line.get_xdata()[0] for line in marks] == [30 * 1024, 40 * 1024, 50 * 1024]
    for mark, row in zip(marks, (29, 39, 49), strict=True):  # before update 31 the curve is where update 30 left it
        assert mark.get_ydata()[0] == columns(60)["episode/return_mean"][row]
    assert texts == [
        "a", "1  learning_rate 0.003 → 0.1", "2  ent_coef 0 → none", "3  total_timesteps 100,000 → 200,000",
    ]  # fmt: skip
    assert [text.get_text() for text in ax.texts] == ["1", "2", "3"]


def test_what_a_fork_took_over_from_its_parent_is_marked_once():
    made = [change(11)]
    data = {"parent": columns(60), "fork": since(30)}
    _, ax, texts = runs_of(data, changes_by_name={"parent": made, "fork": [*made, change(31, "ent_coef")]})
    assert len([line for line in ax.lines if line.get_marker() == "^"]) == 2
    assert texts == ["parent", "1  learning_rate 0.003 → 0.1", "fork", "2  ent_coef 0.003 → 0.1"]


def test_a_change_before_the_first_update_is_marked():
    _, ax, _ = runs_of({"a": columns(60)}, changes_by_name={"a": [change(1)]})
    assert [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "^"] == [0]


NOTHING = {"only NaN": {**columns(5), "episode/return_mean": np.full(5, np.nan)}, "no columns": {}}


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        ({}, None),
        (NOTHING, {"no columns": [change(3)]}),
        ({"one": columns(2), LONG: columns(5000), "$x$": columns(40, steps=25_000_000)}, None),
        ({f"run-{i}": columns(10 + i) for i in range(8)}, {"run-0": [change(i) for i in range(1, 11)] * 2}),
    ],
)
def test_everything_is_inside_the_picture(data, changes):
    figure, ax, texts = runs_of(data, changes_by_name=changes)
    legend = ax.get_legend()
    low, high = ax.get_xlim()
    ticks = [tick for tick, at in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True) if low <= at <= high]
    check_inside(figure, [*ticks, ax.xaxis.label, ax.yaxis.label, *(legend.get_texts() if legend else [])])
    assert len(texts) <= len(data) + plots_runs.MOST_NOTES + 1
    assert len(to_png(figure)) < 150_000
    if not any(run is not NOTHING.get(name) for name, run in data.items()):
        assert ax.get_title(loc="left") == "No episode has ended yet"


@pytest.mark.parametrize("page", ["#ffffff", "#111111"])
@pytest.mark.parametrize("color", [*plots_runs.COLORS, TEXT])
def test_colors_are_seen_on_light_and_dark_pages(color, page):
    def luminance(name):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(name)]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    dark, light = sorted([luminance(color), luminance(page)])
    assert (light + 0.05) / (dark + 0.05) >= 3.0  # WCAG 2.2, 1.4.11: graphical objects


def test_pyplot_is_not_touched():
    code = (
        "import sys; from ppo_lab.notebook import plots as p; f, ax = p.new_figure(); p.plot_lineage([], ax);"
        "p.plot_runs({}, ax); f.canvas.draw(); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
