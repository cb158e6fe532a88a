"""The benchmarks' arithmetic, processes of their own and their pages. Nothing here is timed."""

from __future__ import annotations

import json

import pytest


def test_ratios_are_of_medians_and_of_pairs_of_a_seed(bench):
    ours = [{"seed": 3, "x": 30.0}, {"seed": 1, "x": 8.0}, {"seed": 2, "x": 12.0}]
    theirs = [{"seed": 1, "x": 4.0}, {"seed": 2, "x": 3.0}, {"seed": 3, "x": 10.0}]
    assert bench.tables.ratio(ours, theirs, lambda run: run["x"]) == (12.0 / 4.0, 2.0, 4.0)


def test_a_measurement_comes_back_from_a_process_of_its_own(bench):
    settings = {"env.id": "ppo_lab/CartPole-v1", "env.num_envs": 8, "ppo.num_steps": 16}
    told = bench.measurement.measure("ours.py", "speed", settings=settings, records=True, seed=1, warm_up=1, updates=1)
    assert told["steps"] == 128
    assert told["seconds"] > 0.0


def test_a_child_that_fails_is_reported_with_what_it_said(bench):
    with pytest.raises(SystemExit, match=r"nowhere.py speed .* ended with status 2:\n.*can't open file"):
        bench.measurement.measure("nowhere.py", "speed")


def test_both_pages_are_what_the_results_say(bench):
    results, root = bench.report.read_results(), bench.settings.ROOT
    page = (root / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert page == bench.report.readme(*results), "run benchmarks/peers.py --report"
    front = (root / "README.md").read_text(encoding="utf-8")
    assert front == bench.peers_report.with_summary(front, results[0]), "run benchmarks/peers.py --report"


def test_hardware_tells_no_names(bench):
    import socket

    told = json.dumps(bench.machine.hardware())
    assert socket.gethostname() not in told
    assert bench.machine.hardware()["cores"] >= 1
