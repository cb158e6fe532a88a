"""The physics, against a loop over one car written from its text, and against what steering is known to do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from environment.lateral.driver import gain
from environment.lateral.plants import Drive
from environment.lateral.rules import BINS, COST_END
from environment.lateral.simulate import advance
from environment.lateral.surrogate import RANGES, Surrogate
from environment.lateral.synthetic import synthetic_routes
from ppo_lab.errors import EnvError

CPU = torch.device("cpu")


def begun(N=4, randomise=False, draws=None, use_numpy=None, car=None, **changes):
    """A drive at row 100 of synthetic routes; changes: arrays of the routes."""
    routes = synthetic_routes(N, seed=2)
    for name, value in changes.items():
        getattr(routes, name)[:] = value
    drive = Drive(N, CPU, use_numpy)
    drive.start(routes)
    drive.tensors["draws"][:] = 0.5 if draws is None else torch.as_tensor(draws)
    plant = Surrogate(N, CPU, randomise, car)
    plant.begin(drive, torch.Generator().manual_seed(7))
    return drive, plant


def steered(drive, plant, commands):
    for t in range(100, COST_END):
        advance(drive, plant, t, commands[t - 100])
    return np.asarray(drive.lataccel)[100:COST_END]


def one_car(drive, plant, i, commands):
    """Car i, number by number, from the text of environment/lateral/surrogate.py."""
    own = {name: float(tensor[i]) for name, tensor in plant.memory.items()}
    g = np.interp
    knots, gains = (0, 5, 12, 18, 25, 30, 36), (1.70, 1.75, 1.75, 1.62, 1.62, 1.85, 1.95)
    u = [float(x) for x in drive.actions[:100, i]]
    delay = own["delay"] / 0.1

    def late(t):
        whole = math.floor(delay)
        part = delay - whole
        return (1 - part) * u[t - whole] + part * u[t - whole - 1]

    def settled(t, z):
        v = max(float(drive.v[t, i]), 0.0)
        y = own["gain"] * g(v, knots, gains) * (z - own["friction"] * math.tanh(z / 0.1))
        return 6 * math.tanh((y + own["roll"] * float(drive.roll[t, i])) / 6)

    def follow(t):
        tau = own["tau"] * (0.045 + 0.9 / max(float(drive.v[t, i]), 3.0))
        return 1 - math.exp(-0.1 / tau)

    z = u[67]
    for t in range(70, 100):
        z += follow(t) * (late(t) - z)
    w, before, path = float(drive.target[99, i]) - settled(99, z), float(drive.target[99, i]), []
    for t in range(100, COST_END):
        u.append(float(commands[t - 100, i]))
        z += follow(t) * (late(t) - z)
        noise = norm.ppf(float(drive.draws[t - 100, i]))
        w = 0.967 * w + 1.15 * (0.001 + 0.00125 * max(float(drive.v[t, i]), 0.0)) * noise
        y = BINS[np.searchsorted(BINS, np.clip(settled(t, z) + w, -5, 5))]
        before = min(max(y, before - 0.5), before + 0.5)
        path.append(before)
    return path


@pytest.mark.parametrize("randomise", [False, True])
def test_every_car_is_the_one_of_the_text(randomise):
    rng = np.random.default_rng(0)
    drive, plant = begun(randomise=randomise, draws=rng.random((400, 4)))
    commands = np.cumsum(rng.normal(0, 0.05, (400, 4)), axis=0).clip(-2, 2)
    start = {name: tensor.clone() for name, tensor in plant.memory.items()}
    found = steered(drive, plant, commands)
    plant.memory |= start
    for i in range(4):
        np.testing.assert_allclose(found[:, i], one_car(drive, plant, i, commands), atol=1e-9)


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.28, 0.7, 1.0])
def test_a_car_can_be_slower_or_faster_than_any_that_is_drawn(delay):
    rng = np.random.default_rng(0)
    drive, plant = begun(randomise=True, draws=rng.random((400, 4)), car={"delay": delay, "gain": 0.5})
    commands = np.cumsum(rng.normal(0, 0.05, (400, 4)), axis=0).clip(-2, 2)
    assert (plant.memory["delay"] == delay).all()
    assert len(plant.memory["tau"].unique()) == 4  # what is not given is drawn as before
    start = {name: tensor.clone() for name, tensor in plant.memory.items()}
    found = steered(drive, plant, commands)
    plant.memory |= start
    for i in range(4):
        np.testing.assert_allclose(found[:, i], one_car(drive, plant, i, commands), atol=1e-9)


@pytest.mark.parametrize(
    ("car", "message"), [({"dely": 0.3}, "dely.*it has gain"), ({"delay": 1.2}, "between 0 and 1")]
)
def test_a_car_that_there_is_not_is_refused(car, message):
    with pytest.raises(EnvError, match=message):
        Surrogate(1, CPU, car=car)


def test_torch_gives_the_numbers_of_numpy():
    rng = np.random.default_rng(1)
    draws, commands = rng.random((400, 4)), rng.normal(0, 0.3, (400, 4))
    in_numpy = steered(*begun(randomise=True, draws=draws), commands)
    in_torch = steered(*begun(randomise=True, draws=draws, use_numpy=False), torch.from_numpy(commands))
    np.testing.assert_allclose(in_torch, in_numpy, atol=1e-9)


def test_a_constant_command_settles_where_gain_and_friction_say():
    drive, plant = begun(v=20.0, roll=0.0, steer=0.0, target=0.0)
    found = steered(drive, plant, np.full((400, 4), 0.4))
    expected = 6 * np.tanh(1.62 * (0.4 - 0.05 * np.tanh(4.0)) / 6)
    assert found[-1] == pytest.approx(expected, abs=BINS[1] - BINS[0])


def test_it_answers_late():
    drive, plant = begun(v=30.0, roll=0.0, steer=0.0, target=0.0)
    found = steered(drive, plant, np.full((400, 4), 1.0))[:, 0]
    assert abs(found[:2]).max() < 0.01  # 0.2 s
    assert found[2] == pytest.approx(0.5, abs=0.01)  # and then as fast as a step may change
    assert found[10] > 1.5


def test_the_disturbance_has_the_size_that_is_written():
    draws = np.random.default_rng(3).random((400, 2000))
    drive, plant = begun(N=2000, v=20.0, roll=0.0, steer=0.0, target=0.0, draws=draws)
    found = steered(drive, plant, np.zeros((400, 2000)))
    stationary = 1.15 * (0.001 + 0.00125 * 20) / np.sqrt(1 - 0.967**2)
    assert found[300:].std() == pytest.approx(stationary, rel=0.03)


def test_every_drive_of_a_randomised_car_has_another_one_within_the_ranges():
    _, plant = begun(N=500, randomise=True)
    for name, (low, high) in RANGES.items():
        drawn = plant.memory[name]
        assert low <= drawn.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < drawn.max() <= high


def test_the_gain_is_linear_between_its_knots():
    v = np.linspace(-1, 50, 500)
    expected = np.interp(v, (0, 5, 12, 18, 25, 30, 36), (1.70, 1.75, 1.75, 1.62, 1.62, 1.85, 1.95))
    np.testing.assert_allclose(gain(v), expected, atol=1e-12)
    np.testing.assert_allclose(gain(torch.from_numpy(v)), expected, atol=1e-12)
