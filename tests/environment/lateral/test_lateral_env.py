"""The environment: what is seen, paid and begun, against the controllers' own order of things and rows read by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from environment.lateral import driver
from environment.lateral.controllers import PidController
from environment.lateral.rules import cost
from environment.lateral.simulate import noise_draws, simulate
from environment.lateral.surrogate import Surrogate
from environment.lateral_env import LateralControlEnv, VectorizedLateralControlEnv
from ppo_lab.errors import EnvError

NOMINAL = {"randomise": False, "noise": "official"}


def envs(N=4, **kwargs):
    made = VectorizedLateralControlEnv(N, segments=(0, N), **{**NOMINAL, **kwargs})
    made.reset(1)
    return made


def drive(env, action_of):
    """One whole drive; action_of(t) (N,). Returns the rewards (400, N) and the last Step."""
    rewards = []
    for t in range(100, 500):
        step = env.step(torch.as_tensor(action_of(t), dtype=torch.float64).reshape(-1, 1))
        rewards.append(step.reward.clone())
    return torch.stack(rewards), step


def wiggle(N, size):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, size, (600, N))
    return lambda t: noise[t]


def test_pid_driven_through_the_environment_is_the_simulated_pid():
    env = envs(action="absolute")
    routes = env.pool.take(env._order.numpy())  # as they were shuffled
    simulated = simulate(PidController(), Surrogate(4), routes, noise_draws(routes, "official"))
    commands = simulated.actions.copy()
    assert abs(commands).max() < 2
    _, step = drive(env, lambda t: commands[t] / 2)
    assert step.terminated.all()
    expected = cost(routes.target, simulated.lataccel)
    for found, wanted in zip(env.last_cost, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("size", [0.002, 0.5])
def test_the_reward_is_the_official_cost_unless_it_is_very_bad(size):
    env = envs()
    rewards, step = drive(env, wiggle(4, size))
    assert (rewards <= 0).all()
    assert (rewards >= -200).all()
    assert step.terminated.all()
    assert not step.truncated.any()
    jerk = env.last_cost.jerk * 399 / 400  # 399 changes, of which the mean is official, in 400 rows
    official = 50 * env.last_cost.lateral + jerk
    mean = -100 * rewards.double().mean(0)
    good = (rewards > -199.9).all(0)
    assert good.any() == (size < 0.1)
    np.testing.assert_allclose(mean[good], official[good], rtol=1e-5)
    assert (mean[~good] < official[~good]).all()


def test_what_is_seen_read_by_hand_from_the_rows():
    env = envs()
    action = wiggle(4, 0.05)
    for t in range(100, 150):
        env.step(torch.as_tensor(action(t)).reshape(-1, 1))
    t, target, roll, v, a = 150, *(env.drive.tensors[name].numpy() for name in ("target", "roll", "v", "a"))
    lat, g = env.drive.lataccel, driver.gain(v[t])
    past = np.where(np.arange(550)[:, None] < 100, driver.feedforward(target, roll, v), env.drive.actions)
    integral = np.zeros(4)
    for row in range(20, t + 1):
        integral = 0.95 * integral + 0.2 * (target[row] - lat[row - 1])
    ahead = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 27, 33, 40, 49]
    rows = [4 * (target[t] - lat[t - 1]), integral, lat[t - 1] / 2, v[t] / 20 - 1, a[t], roll[t]]
    rows += [3 * ((target[t + k] - roll[t + k]) / g - past[t - 1]) for k in ahead]
    rows += [3 * ((lat[t - 1] - roll[t]) / g - past[t - 1]), past[t - 1]]
    rows += [20 * (past[t - k] - past[t - k - 1]) for k in (3, 2, 1)]
    rows += [8 * (lat[t - k] - lat[t - k - 1]) for k in (4, 3, 2, 1)]
    rows += [4 * (target[t + k] - target[t]) for k in (1, 2, 3, 4, 5, 7, 10, 15)]
    np.testing.assert_allclose(env.obs, np.clip(rows, -5, 5).T.astype(np.float32), atol=1e-6)


@pytest.mark.parametrize("observation", ["compact", "full256"])
def test_the_steering_before_row_100_is_hidden(observation):
    """An official controller is not told it; a policy that saw it here would be blind there."""
    seen, others = envs(observation=observation), envs(observation=observation)
    others.pool.steer[:] = 1.7
    assert torch.equal(seen.reset(1), others.reset(1))
    assert seen.obs.shape == (4, driver.SIZES[observation])
    assert not torch.equal(seen.step(torch.zeros(4, 1)).obs, others.step(torch.zeros(4, 1)).obs)  # the car feels it


@pytest.mark.parametrize("action", ["delta", "absolute", "pid_residual"])
def test_what_an_action_does(action):
    env = envs(action=action)
    before = driver.feedforward(*(env.drive.tensors[name][99].numpy() for name in ("target", "roll", "v")))
    env.step(torch.full((4, 1), 0.5, dtype=torch.float64))
    routes = env.pool.take(env._order.numpy())
    pid = simulate(PidController(), Surrogate(4), routes, noise_draws(routes, "official")).actions[100]
    expected = {"delta": before + 0.2 * 0.5, "absolute": 2 * 0.5, "pid_residual": pid + 0.5}[action]
    np.testing.assert_allclose(env.drive.actions[100], np.clip(expected, -2, 2), rtol=1e-12)
    env.step(torch.full((4, 1), 99.0))
    assert abs(env.drive.actions[101]).max() <= 2.0


def test_every_route_is_driven_once_before_any_comes_again():
    env = VectorizedLateralControlEnv(3, segments=(0, 5))
    env.reset(4)
    driven = []
    for _ in range(5):
        driven += [env.drive.target[:, i].tobytes() for i in range(3)]
        drive(env, lambda t: np.zeros(3))
    assert all(len(set(driven[i : i + 5])) == 5 for i in (0, 5, 10))
    assert driven[:5] != driven[5:10]


@pytest.mark.parametrize("kwargs", [{}, {"action": "pid_residual", "observation": "full256"}, {"use_numpy": False}])
def test_a_drive_goes_on_from_its_state(kwargs):
    env, other = (VectorizedLateralControlEnv(3, segments=(0, 7), **kwargs) for _ in range(2))
    env.reset(1)
    other.reset(2)
    action = wiggle(3, 0.1)
    for t in range(250):
        env.step(torch.as_tensor(action(t)).reshape(-1, 1))
    other.load_state_dict(env.state_dict())
    assert torch.equal(env.obs, other.obs)
    for t in range(400):
        mine, its = (e.step(torch.as_tensor(action(t)).reshape(-1, 1)) for e in (env, other))
        assert torch.equal(mine.obs, its.obs)
        assert torch.equal(mine.reward, its.reward)


def test_noise_is_fresh_or_the_routes_own_or_none():
    """By route, since each drive has them in another order."""
    drawn = {}
    for noise in ("fresh", "official", "expected"):
        env = envs(noise=noise)
        for _ in range(2):
            order = env._order.tolist()
            drawn.setdefault(noise, []).append(env.drive.draws[:, np.argsort(order)].copy())
            drive(env, lambda t: np.zeros(4))
    assert not np.array_equal(*drawn["fresh"])
    for noise in ("official", "expected"):
        for each in drawn[noise]:
            assert np.array_equal(each, noise_draws(env.pool, noise))
    assert (drawn["expected"][0] == 0.5).all()


def test_one_car_gymnasiums_way():
    env = LateralControlEnv(render_mode="rgb_array")
    env.reset(seed=1)
    for _ in range(399):
        *_, info = env.step(np.zeros(1, np.float32))
        assert info == {}
    *_, terminated, truncated, info = env.step(np.zeros(1, np.float32))
    assert terminated
    assert not truncated
    assert info["total_cost"] == pytest.approx(50 * info["lateral_cost"] + info["jerk_cost"])
    assert env.render().shape == (200, 300, 3)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"plant": "bicycle"}, "plant='bicycle'; allowed are surrogate, onnx, torch"),
        ({"observation": "all"}, "observation='all'; allowed are compact, full256"),
        ({"action": "pid"}, "action='pid'; allowed are delta, absolute, pid_residual"),
        ({"noise": "none"}, "noise='none'; allowed are fresh, official, expected"),
        ({"num_envs": 0}, "num_envs=0; it must be >= 1"),
        ({"plant": "onnx"}, "plant='onnx' needs model, the path of the challenge's tinyphysics.onnx"),
        ({"plant": "torch", "model": "nowhere.onnx"}, "no file nowhere.onnx"),
        ({"segments": (5, 2)}, "segments=[5, 2]"),
        ({"routes": "nowhere"}, "no .csv files in nowhere"),
    ],
)
def test_what_cannot_be_made_says_why(kwargs, said):
    with pytest.raises(EnvError) as error:
        VectorizedLateralControlEnv(**{"num_envs": 1, "segments": (0, 1), **kwargs})
    assert said in str(error.value)
