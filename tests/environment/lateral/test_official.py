"""The official network and segments, where they are at hand: the published score, and the rules row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from environment.lateral.controllers import PidController
from environment.lateral.making import make_plant
from environment.lateral.routes import read_routes
from environment.lateral.rules import cost
from environment.lateral.simulate import noise_draws, simulate
from environment.lateral.tinyphysics import window
from ppo_lab.errors import EnvError
from tests.oracles.controls_challenge import drive_by_the_rules

CPU = torch.device("cpu")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def driven(segments, model):
    """PID on the first 100 segments."""
    routes = read_routes(segments, (0, 100))
    plant = make_plant("onnx", 100, CPU, model)
    return routes, simulate(PidController(), plant, routes, noise_draws(routes, "official"))


def test_pids_published_score(driven):
    routes, drive = driven
    found = cost(routes.target, drive.lataccel)
    assert round(found.total.mean(), 2) == 84.85
    assert (round(found.lateral.mean(), 3), round(found.jerk.mean(), 2)) == (1.272, 21.27)


def test_every_row_is_that_of_the_rules(driven, segments, model):
    """Bit for bit, one car at a time through the whole graph."""
    _, drive = driven
    for i in range(100):
        actions, lataccel = drive_by_the_rules(model, segments / f"{i:05d}.csv")
        assert lataccel[:500] == drive.lataccel[:500, i].tolist()
        assert actions[:500] == drive.actions[:500, i].tolist()


def test_the_torch_plant_answers_like_the_file(driven, model):
    routes, drive = driven
    onnx, in_torch = (make_plant(name, 100, CPU, model) for name in ("onnx", "torch"))
    for t in (100, 250, 499):
        states, tokens = window(drive, t)
        theirs = in_torch.network(torch.from_numpy(states), torch.from_numpy(tokens))
        np.testing.assert_allclose(theirs, onnx.logits(states, tokens), atol=1e-4)
    again = simulate(PidController(), in_torch, routes, noise_draws(routes, "official"))
    assert (again.lataccel[:500] == drive.lataccel[:500]).all(0).sum() >= 95


def test_half_the_bits_are_enough_for_training(driven, model):
    _, drive = driven
    few = make_plant("torch", 100, CPU, model, precision="bfloat16", expected=True)
    exact = make_plant("onnx", 100, CPU, model, expected=True)
    difference = few.next_lataccel(drive, 300) - exact.next_lataccel(drive, 300)
    assert np.sqrt((difference**2).mean()) < 0.005  # m/s^2; the noise has 0.03


def test_the_surrogate_ranks_the_segments_like_the_network(driven):
    routes, drive = driven
    plant = make_plant("surrogate", 100, CPU)
    imitated = simulate(PidController(), plant, routes, noise_draws(routes, "official"))
    rank = spearmanr(cost(routes.target, imitated.lataccel).total, cost(routes.target, drive.lataccel).total).statistic
    assert rank >= 0.9


def test_a_file_that_is_no_network(tmp_path, model):
    path = tmp_path / "broken.onnx"
    path.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(EnvError, match=r"broken\.onnx is"):
        make_plant("onnx", 1, CPU, path)
