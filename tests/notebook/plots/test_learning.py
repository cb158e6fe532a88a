"""The learning curve with other runs and live changes."""

import numpy as np
import pytest

from ppo_lab.notebook.plots import learning_figure, to_png
from ppo_lab.notebook.plots.canvas import BLUE, MOST_NOTES, MOST_POINTS
from ppo_lab.notebook.plots.learning import MOST_NAMED
from ppo_lab.runs import Change
from tests.notebook.fakes import columns as fake_columns
from tests.notebook.plots import layout

RETURN, LENGTH = "episode/return_mean", "episode/length_mean"


def columns(updates, steps=1024):
    known = fake_columns(updates, steps)
    return {**known, LENGTH: known[RETURN] / 2}


def change(update, key="clip_coef", old=0.2, new=0.1):
    return Change(update, (update - 1) * 1024, key, old, new, "dashboard")


def legend_of(figure):
    legend = figure.axes[0].get_legend()
    return [text.get_text() for text in legend.get_texts()] if legend else []


def triangles(figure):
    """Return (step, number) of every mark in order of steps; "" where there was no room for the number."""
    ax = figure.axes[0]
    (marks,) = [line for line in ax.lines if line.get_marker() == "^"]
    labels = {text.get_position()[0]: text.get_text() for text in ax.texts[1:]}  # the first is the title
    assert set(labels) <= set(marks.get_xdata())
    return [(at, labels.get(at, "")) for at in marks.get_xdata()]


LONG = "a-name-of-a-run-that-somebody-made-much-too-long-1"
DRAGGED = [change(20 + i, "learning_rate", 1e-3 + i * 1e-4, 1.1e-3 + i * 1e-4) for i in range(15)]
MANY = [change(i, key) for i in range(1, 60) for key in ("clip_coef", "ent_coef", "total_timesteps")]
BIG = [change(i, "total_timesteps", 123_456_789, 987_654_321) for i in range(101, 300, 2)] * 2
NOTHING = {"only NaN": {**columns(5), RETURN: np.full(5, np.nan)}, "no columns": {}}
CASES = {
    "none": ({}, (), None),
    "none, but changes and others": ({}, [change(3)], {"a": columns(30), **NOTHING}),
    "one": (columns(1), (), None),
    "few": (columns(4), [change(2), change(3)], {"$x$": columns(2)}),
    "more than pixels": (columns(5000), BIG, {LONG: columns(5000)}),
    "dragged slider": (columns(60), [change(3), *DRAGGED, change(50)], None),
    "many changes": (columns(60), MANY, {f"{LONG}{i}": columns(20 + i) for i in range(15)}),
    "nothing else": (columns(60), (), NOTHING),
    "large steps": (columns(40, steps=25_000_000), (), None),
    "negative": ({**columns(50), RETURN: np.linspace(-123456.0, -1500.0, 50)}, [change(25)], None),
    "no spread": ({**columns(50), RETURN: np.zeros(50), "episode/return_std": np.zeros(50)}, (), None),
}


@pytest.mark.parametrize("case", CASES)
def test_everything_is_labelled_inside_and_apart(case):
    figure = learning_figure(*CASES[case], 300_000 if case in ("few", "many changes") else None)
    layout.check(figure)
    assert [ax.get_ylabel() for ax in figure.axes] == ["return", "env steps"]
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert len(to_png(figure)) < 150_000


def test_a_figure_drawn_anew_equals_a_new_one():
    figure = None
    for case in ("none", "many changes", "few", "nothing else", "dragged slider", "none"):
        figure = learning_figure(*CASES[case], 300_000, figure)
        assert to_png(figure) == to_png(learning_figure(*CASES[case], 300_000)), case


def test_the_curves_are_the_data():
    known = columns(50)
    figure = learning_figure(known)
    for ax, name in zip(figure.axes, (RETURN, LENGTH), strict=True):
        (line,) = ax.lines
        np.testing.assert_array_equal(line.get_xdata(), known["global_step"][1:])  # update 1 had no episode
        np.testing.assert_array_equal(line.get_ydata(), known[name][1:])
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(np.nanmax(known[RETURN] + 30.0))
    assert heights.min() == pytest.approx(np.nanmin(known[RETURN] - 30.0))
    assert figure.axes[0].texts[0].get_text().startswith(f"Return {known[RETURN][-1]:.3g} ± 30")
    assert figure.axes[1].texts[0].get_text() == f"Episode length {known[LENGTH][-1]:.3g}"
    line = learning_figure(columns(5000)).axes[0].lines[0]
    assert len(line.get_xdata()) == MOST_POINTS
    assert line.get_xdata()[-1] == 5000 * 1024


def test_other_runs_are_the_data_and_look_different():
    others = {f"run-{i}": columns(30 + i) for i in range(6)}
    figure = learning_figure(columns(50), others=others)
    for ax, name in zip(figure.axes, (RETURN, LENGTH), strict=True):
        mine, *lines = ax.lines
        for line, run in zip(lines, others.values(), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), run["global_step"][1:])
            np.testing.assert_array_equal(line.get_ydata(), run[name][1:])
            assert line.get_linewidth() < mine.get_linewidth()
        assert len({(line.get_color(), str(line._dash_pattern)) for line in ax.lines}) == 7
    assert legend_of(figure) == ["this run", *others]


def test_others_get_room_as_far_as_the_axis_goes():
    higher = {**columns(100), RETURN: np.concatenate([np.full(50, 900.0), np.full(50, 5000.0)])}
    ax = learning_figure(columns(20), others={"a": higher}, total_timesteps=50 * 1024).axes[0]
    assert ax.get_xlim() == (0, 50 * 1024)
    assert 900 < ax.get_ylim()[1] < 1100
    without_end = learning_figure(columns(20), others={"a": higher}).axes[0]
    assert without_end.get_xlim() == (0, 100 * 1024)
    assert without_end.get_ylim()[1] > 5000


def test_more_runs_than_names_are_counted():
    others = {f"run-{i}": columns(30) for i in range(MOST_NAMED + 3)}
    figure = learning_figure(columns(50), others=others)
    assert legend_of(figure)[-1] == "and 3 more"
    assert len(figure.axes[0].lines) == 1 + len(others)


def test_changes_are_numbered_as_in_the_journal_and_written_out():
    made = [change(11), change(31, "ent_coef", 0.0, None), change(51, "total_timesteps", 100_000, 1_500_000)]
    figure = learning_figure(columns(60), made)
    assert triangles(figure) == [(10 * 1024, "1"), (30 * 1024, "2"), (50 * 1024, "3")]
    assert legend_of(figure) == [
        "1  clip_coef 0.2 → 0.1", "2  ent_coef 0 → none", "3  total_timesteps 100k → 1.5M",
    ]  # fmt: skip


def test_what_a_parent_changed_is_not_marked_but_counted():
    fork = {name: values[30:] for name, values in columns(60).items()}
    assert legend_of(learning_figure(fork, [change(11), change(41)])) == ["2  clip_coef 0.2 → 0.1"]


def test_a_dragged_slider_is_one_change():
    made = [change(3), *DRAGGED, change(50)]
    figure = learning_figure(columns(1000), made)
    assert triangles(figure) == [(2 * 1024, "1"), (19 * 1024, ""), (49 * 1024, "17")]  # no room for the middle one
    assert legend_of(figure)[1] == "2–16  learning_rate 0.001 → 0.0025"
    assert [text for _, text in triangles(learning_figure(columns(150), made))] == ["1", "2–16", "17"]
    apart = [made[0], *DRAGGED[:3], change(23, "ent_coef"), *DRAGGED[4:], change(50)]
    numbers = [note.split()[0] for note in legend_of(learning_figure(columns(150), apart))]
    assert numbers == ["1", "2–4", "5", "6–16", "17"]


def test_only_the_last_changes_are_written_out():
    made = [change(i, key) for i, key in enumerate(("clip_coef", "ent_coef") * 100, start=1)]
    texts = legend_of(learning_figure(columns(200), made))
    assert texts[0] == "earlier changes: see the journal"
    assert [note.split()[0] for note in texts[1:]] == [str(i) for i in range(201 - MOST_NOTES, 201)]


def test_marks_stand_below_the_curve():
    figure = learning_figure(columns(60), [change(31)])
    ax = figure.axes[0]
    figure.canvas.draw()
    label = ax.transData.inverted().transform(ax.texts[1].get_window_extent())
    assert label[1][1] < np.nanmin(columns(60)[RETURN]) - 30
    (mark,) = [line for line in ax.lines if line.get_marker() == "^"]
    assert mark.get_color() == BLUE


def test_a_change_at_the_beginning_stays_right_of_the_axis():
    figure = learning_figure(columns(1000), [change(1), change(2)])
    figure.canvas.draw()
    ax = figure.axes[0]
    assert ax.texts[1].get_text() == "1–2"
    assert ax.texts[1].get_window_extent().x0 >= ax.bbox.x0


def test_without_a_legend_the_curve_has_all_the_width():
    plain, noted = learning_figure(columns(60)), learning_figure(columns(60), [change(31)])
    assert plain.axes[0].get_position().x1 > 0.95 > 0.8 > noted.axes[0].get_position().x1
    assert plain.axes[0].get_xlim()[0] == 0
