"""`evaluate` with --data, --model and their like."""

from __future__ import annotations

import csv
import sys

import pytest

from environment.lateral.routes import write_routes
from environment.lateral.synthetic import synthetic_routes
from ppo_lab.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two routes as the challenge's CSV files."""
    place = tmp_path_factory.mktemp("data")
    write_routes(synthetic_routes(2), place)
    return place


def said(capsys, *arguments):
    assert main(["evaluate", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def error_line(capsys, *arguments):
    """The one line on stderr of an `evaluate` that fails."""
    assert main(["evaluate", *map(str, arguments)]) == 1
    out = capsys.readouterr()
    assert out.err.count("\n") == 1
    assert out.err.startswith("error: ")
    return out.err


def test_without_its_flags_there_is_no_table(run, capsys):
    lines = said(capsys, run, "--episodes", 2)
    assert len(lines) == 2
    assert lines[1] == "length 400.0, 2 of 2 terminated"


def test_segments_of_the_surrogate_come_after_the_episodes(run, capsys, tmp_path):
    lines = said(capsys, run, "--episodes", 2, "--segments", 3, "--csv", tmp_path / "costs.csv")
    assert lines[0].startswith("return ")
    assert lines[2].startswith("surrogate_cost with the physics surrogate on 3 synthetic routes, official noise; not a")
    assert lines[-2].startswith("surrogate_cost, steers - pid: ")
    assert not [line for line in lines if "total" in line]
    with (tmp_path / "costs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3


def test_real_roads_without_the_model_are_still_the_surrogate(run, folder, capsys):
    lines = said(capsys, run, "--episodes", 1, "--data", folder, "--noise", "fresh", "--segments", "1:2")
    assert lines[2].startswith("surrogate_cost with the physics surrogate on 1 segments, fresh noise; not a score")


def test_the_seed_is_that_of_fresh_noise(run, capsys):
    flags = ["--episodes", 1, "--noise", "fresh", "--segments", 2, "--seed"]
    tables = [said(capsys, run, *flags, seed)[3:] for seed in (1, 1, 2)]
    assert tables[0] == tables[1] != tables[2]


def test_what_is_missing_is_one_line(run, folder, make_run, capsys, tmp_path, monkeypatch):
    model = tmp_path / "tinyphysics.onnx"
    assert "--model needs --data" in error_line(capsys, run, "--model", model)
    assert "no folder nowhere" in error_line(capsys, run, "--model", model, "--data", "nowhere")
    assert f"no file {model}" in error_line(capsys, run, "--model", model, "--data", folder)
    assert "no .csv files" in error_line(capsys, run, "--model", model, "--data", tmp_path)
    assert "--max-steps and --stochastic" in error_line(capsys, run, "--model", model, "--data", folder, "--stochastic")
    model.write_bytes(b"no network")
    for package in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    assert "pip install onnxruntime onnx" in error_line(capsys, run, "--model", model, "--data", folder)
    other = make_run("other", {"env.id": "ppo_lab/CartPole-v1", "env.kwargs": {}})
    assert "on ppo_lab/CartPole-v1; --segments is for runs on" in error_line(capsys, other, "--segments", 2)


@pytest.mark.parametrize("text", ["0", "5:5", "many", ":", "1:2:3"])
def test_wrong_segments_are_wrong_usage(text, capsys):
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "x", "--segments", text])
    assert left.value.code == 2
    assert "a number of segments, or START:STOP" in capsys.readouterr().err


@pytest.mark.slow
def test_the_official_network_gives_the_challenges_costs(run, segments, model, capsys):
    lines = said(capsys, run, "--data", segments, "--model", model, "--segments", 3)
    assert lines[0] == "total_cost with the official network on 3 segments, official noise"
    assert lines[-1].startswith("total_cost, steers - pid: ")
