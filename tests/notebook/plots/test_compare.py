"""Comparing runs: grouping of seeds, the band of the mean, the table of differences, and error messages."""

import base64
import itertools
import json
import os

import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection

from ppo_lab.config import Config
from ppo_lab.config.loading import override, render_yaml
from ppo_lab.errors import ConfigError, RunError
from ppo_lab.evaluation.statistics import mean_interval
from ppo_lab.notebook import plots
from ppo_lab.notebook.data.run_groups import MOST_SETTINGS, find_runs
from ppo_lab.notebook.plots.compare import GRID, LONGEST_LINE, seed_band
from ppo_lab.runs import Change, list_runs
from ppo_lab.training.trainer import Trainer
from tests.notebook.fakes import columns
from tests.notebook.fakes import trainer as small_trainer

LR = "ppo.learning_rate"
SECONDS = itertools.count(1_000_000_000)  # runs are listed by age, and a clock can be too coarse for tests


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def write(root, name, offset=0.0, updates=20, parent=None, at=None, journal=(), **settings):
    """Write a run folder whose return is 20 + offset and grows by 1 per update."""
    folder = root / name
    folder.mkdir(parents=True)
    keys = {key.replace("__", "."): value for key, value in settings.items()}
    (folder / "config.yaml").write_text(render_yaml(override(Config(), {**keys, "run.name": name})))
    os.utime(folder / "config.yaml", (now := next(SECONDS), now))
    rows = [
        {"update": i, "global_step": i * 100, "loss/entropy": 0.5, "episode/return_mean": 20.0 + offset + i}
        for i in range(1, updates + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "journal.jsonl").write_text("".join(json.dumps(change._asdict()) + "\n" for change in journal))
    if parent is not None:
        lineage = {"parent": parent, "step": at, "update": 1, "fingerprint": "", "changes": {}}
        (folder / "lineage.json").write_text(json.dumps(lineage))


def change(update, new=0.1):
    return Change(update, (update - 1) * 100, "learning_rate", 0.003, new, "code")


def sweep(root):
    """Write two settings with three seeds each, and one run of a third setting."""
    for seed in (1, 2, 3):
        write(root, f"slow-{seed}", offset=seed, run__seed=seed, ppo__learning_rate=0.001)
        write(root, f"fast-{seed}", offset=10 * seed, run__seed=seed, ppo__learning_rate=0.01)
    write(root, "alone", ppo__learning_rate=0.1, run__seed=9)


def drawn(figure):
    """Return label -> (curve, band or None), and the texts of the legend."""
    figure.canvas.draw()
    (ax,) = figure.axes
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    curves = [line for line in ax.lines if line.get_marker() != "^"]
    bands = {  # by color
        tuple(c.get_facecolor()[0][:3]): c for c in ax.collections if isinstance(c, FillBetweenPolyCollection)
    }
    found = {}
    for line in curves:
        color = tuple(np.array([int(line.get_color()[i : i + 2], 16) for i in (1, 3, 5)]) / 255)
        found[len(found)] = (line, bands.get(color))
    return found, texts


def labels(figure):
    return [text for text in drawn(figure)[1] if not text.startswith("95 %")]


def test_runs_that_differ_in_their_seeds_only_are_one_curve_with_a_band(root):
    sweep(root)
    curves, texts = drawn(plots.compare("runs"))
    assert sorted(texts) == sorted(
        [
            f"{LR} 0.001 (3 seeds)", f"{LR} 0.01 (3 seeds)", f"alone: {LR} 0.1",
            "95 % interval of the mean over seeds",
        ]
    )  # fmt: skip
    by_label = {text: curves[i] for i, text in enumerate(texts) if i in curves}
    for label, mean, band in ((f"{LR} 0.01 (3 seeds)", 20, True), (f"alone: {LR} 0.1", 0, False)):
        line, area = by_label[label]
        np.testing.assert_array_equal(line.get_xdata(), 100 * np.arange(1, 21))
        np.testing.assert_allclose(line.get_ydata(), 20 + mean + np.arange(1, 21))
        assert (area is not None) == band


def test_the_band_is_the_bootstrap_interval_of_the_mean_of_the_seeds():
    rng = np.random.default_rng(0)
    values = rng.normal(100, 20, (5, 12))
    step = np.arange(1.0, 13) * 64
    band = seed_band([{"global_step": step, "x": row} for row in values], "x")
    np.testing.assert_array_equal(band.step, step)
    np.testing.assert_allclose(band.mean, values.mean(axis=0))
    for i in range(12):
        assert (band.low[i], band.high[i]) == mean_interval(values[:, i])
    assert (band.low < band.mean).all()
    assert (band.mean < band.high).all()


def test_seeds_with_other_steps_meet_where_all_of_them_have_been():
    line = {"global_step": np.array([0.0, 10, 20, 30]), "x": np.array([np.nan, 1.0, 2.0, 3.0])}
    steeper = {"global_step": np.array([4.0, 12, 24]), "x": np.array([4.0, 12.0, 24.0])}
    band = seed_band([line, steeper], "x")
    np.testing.assert_array_equal(band.step, [10, 12, 20, 24])
    np.testing.assert_allclose(band.mean, [(1 + 10) / 2, (1.2 + 12) / 2, (2 + 20) / 2, (2.4 + 24) / 2])


def test_seeds_that_share_no_step_have_no_mean():
    early, late = ({"global_step": np.array(s), "x": np.ones(2)} for s in ([1.0, 2.0], [3.0, 4.0]))
    assert all(len(part) == 0 for part in seed_band([early, late], "x"))
    assert all(len(part) == 0 for part in seed_band([early, {}], "x"))


def test_long_runs_are_thinned_out_and_keep_their_ends():
    step = np.arange(1.0, 3001)
    band = seed_band([{"global_step": step, "x": step}, {"global_step": step, "x": step + 2}], "x")
    assert len(band.step) == GRID
    assert (band.step[0], band.step[-1]) == (1, 3000)
    np.testing.assert_allclose(band.mean, band.step + 1)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"run__seed": 1}, {"run__seed": 1}),  # the same story twice is no second witness
        ({"run__seed": 1}, {"run__seed": 2, "journal": [change(5)]}),
        ({"run__seed": 1, "journal": [change(5)]}, {"run__seed": 2, "journal": [change(6)]}),
        ({"run__seed": 1}, {"run__seed": 2, "parent": "gone", "at": 100}),
        ({"run__seed": 1, "parent": "gone", "at": 200}, {"run__seed": 2, "parent": "gone", "at": 100}),
        ({"run__seed": 1, "parent": "other", "at": 100}, {"run__seed": 2, "parent": "gone", "at": 100}),
        ({"run__seed": 1}, {"run__seed": 2, "model__activation": "relu"}),
    ],
)
def test_other_stories_are_curves_of_their_own(root, first, second):
    write(root, "a", **first)
    write(root, "b", offset=5, **second)
    assert [text for text in labels(plots.compare(["a", "b"])) if "→" not in text] == ["a", "b"]


@pytest.mark.parametrize("shared", [{"journal": [change(5)]}, {"parent": "gone", "at": 100}, {"run__threads": 2}, {}])
def test_the_same_story_with_another_seed_is_a_second_witness(root, shared):
    write(root, "a", run__seed=1, **{**shared, "run__threads": 1})
    write(root, "b", offset=5, run__seed=2, **shared)
    figure = plots.compare("runs")
    assert labels(figure)[0] == "2 seeds"
    assert len([line for line in figure.axes[0].lines if line.get_marker() == "^"]) == len(shared.get("journal", ()))


def test_a_run_that_waits_for_its_first_episode_takes_nothing_from_the_others(root):
    write(root, "a", run__seed=1)
    write(root, "b", run__seed=2, offset=4)
    write(root, "c", run__seed=3, updates=0)
    assert labels(plots.compare("runs")) == ["2 seeds", "c: nothing yet"]


def test_groups_that_no_setting_names_are_named_after_a_run(root):
    for seed in (1, 2):
        write(root, f"plain-{seed}", run__seed=seed, offset=seed)
        write(root, f"turned-{seed}", run__seed=seed, offset=seed, journal=[change(5)])
    names = [text for text in labels(plots.compare("runs")) if "→" not in text]
    assert sorted(names) == ["2 seeds, as plain-1", "2 seeds, as turned-1"]


def test_many_settings_are_told_in_lines_and_not_all(root):
    other = {"ppo__gamma": 0.9, "ppo__gae_lambda": 0.5, "ppo__vf_coef": 0.1, "ppo__adam_eps": 0.1, "ppo__ent_coef": 1}
    for seed in (1, 2):
        write(root, f"a-{seed}", run__seed=seed)
        write(root, f"b-{seed}", run__seed=seed, **other, env__id="a$very$" + "long" * 20)
    for label in labels(plots.compare("runs")):
        lines = label.split("\n")
        assert len(lines) == MOST_SETTINGS + 1
        assert lines[-1] == "and 2 more (2 seeds)"
        assert max(map(len, lines)) <= LONGEST_LINE + 2
    assert r"env.id a\$very\$long" in labels(plots.compare("runs"))[1].replace('"', "")  # a bare $ begins a formula


def test_changes_of_a_run_are_triangles_on_its_curve(root):
    write(root, "a", journal=[change(5), change(9, 0.2)])
    write(root, "b", offset=5, model__shared=True)
    figure = plots.compare(["a", "b"])
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "^"]
    assert [(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in marks] == [(400, 24), (800, 28)]
    assert labels(figure) == ["a", "1  learning_rate 0.003 → 0.1", "2  learning_rate 0.003 → 0.2", "b"]


def test_runs_can_be_given_as_names_folders_lines_of_the_table_or_their_folder(root):
    sweep(root)
    every = [root / name.name for name in list_runs(root)]
    for given in ("runs", root, [run.name for run in every], every, map(str, every), list_runs(root)):
        assert [place.resolve() for place in find_runs(given)] == every
    for given in ("alone", "runs/alone", root / "alone", ["alone", root / "alone"]):
        assert [place.resolve() for place in find_runs(given)] == [root / "alone"]
    assert find_runs(["alone"], root) == [root / "alone"]


def test_runs_of_the_same_name_are_told_apart_by_their_folders(root):
    write(root / "x", "a")
    write(root / "y", "a", ppo__gamma=0.5)
    assert plots.differences(["runs/x/a", "runs/y/a"]).runs == ["runs/x/a", "runs/y/a"]


@pytest.mark.parametrize(
    ("given", "options", "error", "says"),
    [
        ([], {}, RunError, "no runs given: "),
        ("nowhere", {}, RunError, "no run nowhere in runs"),
        (["nowhere"], {}, RunError, "no run at runs/nowhere; runs in runs: a, empty, torn"),
        (["else/where"], {}, RunError, "no run at else/where"),
        ("void", {}, RunError, "no runs in void"),
        ("empty", {}, RunError, "no metrics recorded yet in empty"),
        ("torn", {}, RunError, "line 1 does not hold the metrics of an update"),
        ("a", {"metric": "loss/entrpy"}, ConfigError, "known: episode/return_mean, loss/entropy"),
        ("a", {"metric": "episode/retrun"}, ConfigError, "known: "),
    ],
)
def test_what_cannot_be_compared_is_one_line(root, given, options, error, says):
    (root.parent / "void").mkdir()
    write(root, "a")
    write(root, "empty", updates=0)
    write(root, "torn")
    (root / "torn" / "metrics.jsonl").write_text("what?\n")
    with pytest.raises(error) as raised:
        plots.compare(given, **options)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_return_is_not_unknown_before_the_first_episode_has_ended(root):
    write(root, "a")
    rows = [{"update": 1, "global_step": 100, "loss/entropy": 0.5}]
    (root / "a" / "metrics.jsonl").write_text(json.dumps(rows[0]) + "\n")
    figure = plots.compare("a")
    assert labels(figure) == ["a: nothing yet"]
    assert figure.axes[0].get_title(loc="left") == "Nothing to draw yet"


def test_more_curves_than_can_be_told_apart_are_refused(root):
    for i in range(21):
        write(root, f"run-{i}", ppo__gamma=i / 100)
    with pytest.raises(ConfigError, match="21 curves are too many"):
        plots.compare("runs")
    curves, _ = drawn(plots.compare([f"run-{i}" for i in range(20)]))
    looks = {(line.get_color(), str(line._dash_pattern)) for line, _ in curves.values()}
    assert len(looks) == 20


@pytest.mark.parametrize("case", ["sweep", "long", "many"])
def test_everything_is_inside_the_picture(root, case):
    if case == "sweep":
        sweep(root)
    elif case == "long":
        for seed in (1, 2):
            write(root, f"a-{seed}", run__seed=seed, journal=[change(i) for i in range(2, 15)])
            write(root, f"{'b' * 60}-{seed}", run__seed=seed, ppo__gamma=0.5, model__hidden_sizes=[1] * 60)
    else:
        for i in range(20):
            write(root, f"run-{i}", ppo__gamma=i / 100)
    figure = plots.compare("runs")
    figure.canvas.draw()
    (ax,) = figure.axes
    for text in [*ax.get_legend().get_texts(), ax.xaxis.label, ax.yaxis.label]:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
    assert ax.get_window_extent().width > 0.4 * figure.bbox.width


def test_a_figure_shows_itself_in_a_notebook_and_can_be_read_aloud(root):
    sweep(root)
    what = "episode/return_mean over env steps of "
    for figure, words in ((plots.compare("runs"), what), (plots.lineage("runs"), "the tree of runs")):
        png, about = figure._repr_png_()
        assert base64.b64decode(png).startswith(b"\x89PNG")
        assert words in about["alt"]


def test_lineage_draws_the_runs_that_are_meant(root):
    write(root, "a")
    write(root, "b", parent="a", at=500)
    ax = plots.lineage("runs").axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    alone = plots.lineage(["b"]).axes[0]
    assert [text.get_text() for text in alone.get_yticklabels()] == ["b\n(from a)"]
    (root.parent / "void").mkdir()
    with pytest.raises(RunError, match="no runs in"):
        plots.lineage(root.parent / "void")


def test_the_table_tells_what_differs_and_nothing_else(root):
    write(root, "a", ppo__gamma=0.5, run__seed=1)
    write(root, "b", ppo__gamma=0.9, run__seed=1, env__kwargs={"a|b": "`c`"}, parent="a", at=1_000)
    write(root, "c", ppo__gamma=0.9, run__seed=2, journal=[change(5)])
    table = plots.differences(["a", "b", "c"])
    assert table.runs == ["a", "b", "c"]
    assert table.rows == {
        "parent": ["", "a at 1,000", ""],
        "env.kwargs": ["{}", '{"a|b": "`c`"}', "{}"],
        "ppo.gamma": ["0.5", "0.9", "0.9"],
        "run.seed": ["1", "1", "2"],
        "changed live": ["", "", "learning_rate 0.003 -> 0.1 at 400"],
    }
    lines = str(table).split("\n")
    assert lines[0].split() == ["a", "b", "c"]
    places = [line.index(value) for line, value in zip(lines, ["b", "a at", '{"a|b', "0.9"], strict=False)]
    assert len(set(places)) == 1, "cells of a column begin below each other"
    markdown = table._repr_markdown_().split("\n")
    assert markdown[4] == "| `ppo.gamma` | `0.5` | `0.9` | `0.9` |"
    assert {line.replace(r"\|", "").count("|") for line in markdown} == {5}


def test_runs_that_do_not_differ_are_said_to(root):
    write(root, "a")
    write(root, "b")
    assert str(plots.differences("runs")) == plots.differences("runs")._repr_markdown_() == "no settings differ: a, b"


def test_runs_that_were_really_made_can_be_compared(root):
    for seed in (1, 2):
        run = small_trainer(
            3, **{"run.root": "runs", "run.seed": seed, "run.tensorboard": False, "run.name": f"s{seed}"}
        )
        for _ in run:
            pass
        run.close()
    fork = Trainer.fork(
        "runs/s1", at="latest", overrides={"ppo.gamma": 0.5, "ppo.total_timesteps": 320, "run.name": "fork"}
    )
    for _ in fork:
        pass
    fork.close()
    figure = plots.compare("runs", metric="loss/entropy")
    assert figure.axes[0].get_ylabel() == "entropy (nats)"
    assert labels(figure) == [
        "ppo.total_timesteps 192\nppo.gamma 0.99 (2 seeds)", "fork: ppo.total_timesteps 320\nppo.gamma 0.5",
    ]  # fmt: skip
    assert plots.differences("runs").rows["ppo.gamma"] == ["0.99", "0.99", "0.5"]
    assert plots.differences("runs").rows["parent"][2].startswith("s1 at ")


def test_arrays_are_enough():
    figure, ax = plots.new_figure()
    plots.plot_seeds({"a": [columns(20), columns(21)], "b": [columns(30)]}, ax, ylabel="score")
    figure.canvas.draw()
    assert ax.get_ylabel() == "score"
    assert [text.get_text() for text in ax.get_legend().get_texts()][:2] == ["a", "b"]
