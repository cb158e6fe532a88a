"""Costs of a controller beside PID's: paired, reproducible, and never called what they are not."""

from __future__ import annotations

import csv
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from environment.lateral.challenge import Drives, LateralEvaluation, evaluate_lateral
from environment.lateral.controllers import PidController
from environment.lateral.making import load_routes
from environment.lateral.routes import write_routes
from environment.lateral.rules import Cost, cost
from environment.lateral.simulate import noise_draws, simulate
from environment.lateral.surrogate import Surrogate
from environment.lateral.synthetic import synthetic_routes
from ppo_lab.errors import ConfigError, EnvError, NonFiniteError, RunError
from ppo_lab.evaluation import bootstrap_interval

SCORES = np.array([[10.0, 14.0], [1.0, 3.0], [5.0, 5.0]])  # (S, K)
MORE = np.array([[1.0, 3.0], [2.0, 2.0], [-6.0, -6.0]])  # that PID costs


def drives(total):
    return Drives(Cost(total / 100, total / 2, total), np.zeros((500, 3)), np.zeros((500, 3)))


def result(plant="onnx", noise="fresh", keys=("data/00000.csv", "data/00001.csv", "data/00002.csv")):
    mine, pid = drives(SCORES), drives(SCORES + MORE)
    return LateralEvaluation("ppo-1", plant, noise, keys, (4, 5), np.zeros((500, 3)), mine, pid)


@pytest.fixture(scope="module")
def zero():
    """Hands off the wheel, on three routes with two sets of noise."""
    return evaluate_lateral("zero", segments=3, noise="fresh", seeds=2)


# the numbers


def test_the_costs_are_those_of_the_official_order():
    found = evaluate_lateral("pid", segments=4)
    routes = load_routes("synthetic", (0, 4), 1)
    draws = noise_draws(routes, "official")
    drive = simulate(PidController(), Surrogate(4, torch.device("cpu")), routes, draws)
    for mine, its in zip(found.controller.cost, cost(drive.target, drive.lataccel), strict=True):
        np.testing.assert_array_equal(mine[:, 0], its)
    np.testing.assert_array_equal(found.controller.steering, drive.actions[:500])
    np.testing.assert_array_equal(found.controller.lataccel, drive.lataccel[:500])
    assert (found.keys, found.name) == (routes.keys, "pid")


def test_pid_drives_with_the_same_noise():
    found = evaluate_lateral(PidController(), segments=3, noise="fresh", seeds=2)
    np.testing.assert_array_equal(found.controller.cost, found.pid.cost)
    assert found.interval() == (0.0, 0.0)
    assert found.name == "PidController"


def test_every_set_of_noise_is_another_and_has_a_seed_of_its_own(zero):
    second = evaluate_lateral("zero", segments=3, noise="fresh", seed=2)
    assert zero.seeds == (1, 2)
    for who in ("controller", "pid"):
        both, alone = getattr(zero, who).cost.total, getattr(second, who).cost.total
        np.testing.assert_array_equal(both[:, 1:], alone)
        assert (both[:, 0] != both[:, 1]).all()


@pytest.mark.parametrize("noise", ["official", "fresh", "expected"])
def test_a_segment_costs_the_same_whatever_is_driven_beside_it(noise):
    few, more = (evaluate_lateral("pid", segments=segments, noise=noise) for segments in (2, 4))
    np.testing.assert_allclose(more.pid.cost.total[:2], few.pid.cost.total, rtol=1e-12)
    if noise != "fresh":  # whose noise is that of the place in the line
        part = evaluate_lateral("pid", segments=(1, 3), noise=noise)
        assert part.keys == more.keys[1:3]
        np.testing.assert_allclose(more.pid.cost.total[1:3], part.pid.cost.total, rtol=1e-12)


def test_csv_routes_are_the_first_files(tmp_path):
    write_routes(synthetic_routes(3, seed=1), tmp_path)
    there = evaluate_lateral("pid", routes=tmp_path, segments=2)
    assert there.keys == ("data/00000.csv", "data/00001.csv")
    here = evaluate_lateral("pid", segments=2, noise="expected")  # official noise goes by the name
    again = evaluate_lateral("pid", routes=tmp_path, segments=2, noise="expected")
    np.testing.assert_allclose(again.pid.cost.total, here.pid.cost.total, rtol=1e-9)


def test_means_medians_tails_and_the_difference():
    found = result()
    assert found.controller.mean().total == pytest.approx(38 / 6)
    assert found.controller.median().lateral == pytest.approx(0.05)
    assert found.pid.p90().total == pytest.approx(np.quantile(found.pid.cost.total, 0.9))
    np.testing.assert_allclose(found.difference, [-2.0, -2.0, 6.0])
    assert found.interval() == bootstrap_interval([-2.0, -2.0, 6.0], np.mean)  # over segments, not over drives


def test_a_run_drives_by_its_policy(run):
    found = evaluate_lateral(run, segments=2)
    assert found.name == "steers"
    assert found.plant == "surrogate"
    assert (found.difference > 100).all()  # it has hardly learned anything


# what it says


def test_a_cost_on_the_surrogate_is_never_shown_as_the_score(zero, tmp_path):
    zero.write_csv(tmp_path / "costs.csv")
    for text in (zero.table(), (tmp_path / "costs.csv").read_text(), repr(zero.rows())):
        assert "surrogate_cost" in text
        assert not re.search(r"total|official network|(?<!not a )score", text)
        assert not re.search(r"(?<!surrogate_)(lateral|jerk)_cost", text)
    assert zero.table().splitlines()[0].endswith("; not a score of the challenge")


@pytest.mark.parametrize(
    ("change", "is_score"),
    [
        ({}, True),
        ({"plant": "surrogate"}, False),
        ({"plant": "torch"}, False),  # the last bits are others
        ({"noise": "fresh"}, False),
        ({"keys": ("synthetic-1/00000", "synthetic-1/00001", "synthetic-1/00002")}, False),
    ],
)
def test_only_the_official_network_roads_and_noise_make_a_score(change, is_score):
    found = replace(result(noise="official"), **change)
    assert found.is_score is is_score
    assert ("not a score of the challenge" in found.table()) is not is_score


def test_the_table_shows_both_and_the_difference():
    lines = result().table().splitlines()
    assert lines[0].startswith("total_cost with the official network on 3 segments, fresh noise of 2 seeds")
    assert lines[1].split() == ["mean", "median", "p90"]
    assert lines[2].split() == ["ppo-1", "lateral", "0.063", "0.050", "0.120"]
    assert lines[4].split() == ["total_cost", "6.333", "5.000", "12.000"]
    assert lines[5].split()[:2] == ["pid", "lateral"]
    assert re.fullmatch(r"total_cost, ppo-1 - pid: 0\.67 \(95 % interval -2\.00 to 6\.00\), lower on 2 of 3", lines[-1])


def test_the_file_has_a_row_for_each_drive(tmp_path):
    found = result()
    found.write_csv(tmp_path / "costs.csv")
    with (tmp_path / "costs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["segment"], row["noise_seed"]) for row in rows[:3]] == [
        ("data/00000.csv", "4"), ("data/00000.csv", "5"), ("data/00001.csv", "4"),
    ]  # fmt: skip
    np.testing.assert_array_equal([float(row["total_cost"]) for row in rows], SCORES.ravel())
    np.testing.assert_array_equal([float(row["pid_jerk_cost"]) for row in rows], found.pid.cost.jerk.ravel())
    with pytest.raises(RunError, match=r"cannot write .*nowhere"):
        found.write_csv(tmp_path / "nowhere" / "costs.csv")


# what cannot work


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"plant": "car"}, ConfigError, "plant='car'; allowed are surrogate, onnx, torch"),
        ({"noise": "loud"}, ConfigError, "noise='loud'; allowed are fresh, official, expected"),
        ({"seeds": 0}, ConfigError, "seeds=0"),
        ({"seeds": 2}, ConfigError, "official noise is the same every time"),
        ({"model": "tinyphysics.onnx"}, ConfigError, "set plant='onnx'"),
        ({"plant": "onnx"}, EnvError, "needs model"),
        ({"routes": "nowhere"}, ConfigError, "no folder nowhere"),
        ({"segments": 0}, EnvError, "0 <= start < stop"),
        ({"controller": "nobody"}, RunError, "no run at"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, error, text):
    with pytest.raises(error, match=re.escape(text)):
        evaluate_lateral(**{"controller": "pid", "segments": 1, **arguments})


def test_a_controller_that_loses_its_mind_is_named():
    class Lost(PidController):
        def update(self, *told):
            return super().update(*told) * np.nan

    with pytest.raises(NonFiniteError, match="Lost steered by NaN or infinity on synthetic-1/00000"):
        evaluate_lateral(Lost(), segments=1)


# the official network


@pytest.mark.slow
def test_pid_has_its_published_cost(model, segments):
    found = evaluate_lateral("pid", "onnx", segments, 20, model)
    assert found.is_score
    assert round(found.pid.mean().total, 3) == 73.427  # what the challenge's eval.py says of its first 20 segments
