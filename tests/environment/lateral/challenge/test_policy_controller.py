"""A policy steers the same through the official calls as through the environment it was trained in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from environment.lateral.challenge import PolicyController, load_controller
from environment.lateral.rules import CONTROL_START, COST_END, EPISODE_STEPS
from environment.lateral.simulate import simulate
from environment.lateral.surrogate import Surrogate
from environment.lateral_env import VectorizedLateralControlEnv
from ppo_lab.errors import ConfigError, RunError

N = 3
CASES = [
    (observation, action, settings)
    for observation in ("compact", "full256")
    for action in ("delta", "absolute", "pid_residual")
    for settings in ({},)
] + [
    ("compact", "delta", {"core": "gru", "core_size": 8}),
    ("full256", "pid_residual", {"core": "lstm", "core_size": 8}),
    ("compact", "absolute", {"normalize_obs": True, "distribution": "beta"}),
]


def stepped(policy, observation, action, drives=1):
    """The last of some drives in the environment: routes, noise, steering and lataccel (T, N), costs."""
    envs = VectorizedLateralControlEnv(N, segments=(0, 5), randomise=False, observation=observation, action=action)
    obs, memory, starts = envs.reset(7), policy.initial_memory(N), torch.ones(N, dtype=torch.bool)
    for _ in range(drives):
        targets = envs.pool.target.T
        order = [int(np.flatnonzero((targets == mine).all(1))[0]) for mine in envs.drive.target.T]
        draws = envs.drive.draws.copy()
        for _ in range(EPISODE_STEPS):
            paths = [rows.copy() for rows in (envs.drive.actions, envs.drive.lataccel)]
            chosen, memory = policy.act(obs, memory, starts)
            step = envs.step(chosen)
            obs, starts = step.obs, step.terminated
    return envs.pool.take(order), draws, paths, envs.last_cost


@pytest.mark.parametrize(("observation", "action", "settings"), CASES)
def test_it_drives_as_the_environment_does(observation, action, settings, make_policy):
    policy = make_policy(observation, **settings)
    routes, draws, (steering, lataccel), costs = stepped(policy, observation, action)
    controller = PolicyController(policy, observation, action)
    drive = simulate(controller, Surrogate(N, torch.device("cpu")), routes, draws)
    driven = slice(CONTROL_START, COST_END - 1)  # before the last step, which the environment follows by new drives
    np.testing.assert_array_equal(drive.actions[driven], steering[driven])
    np.testing.assert_array_equal(drive.lataccel[driven], lataccel[driven])
    error = (drive.target - drive.lataccel)[CONTROL_START:COST_END]
    np.testing.assert_allclose((error**2).mean(0) * 100, costs.lateral, rtol=1e-12)
    assert np.ptp(drive.actions[driven], axis=0).min() > 0.1  # it did steer


def test_a_new_drive_begins_with_nothing_in_mind(make_policy):
    policy = make_policy(core="gru", core_size=8)
    routes, draws, (steering, _), _ = stepped(policy, "compact", "delta", drives=2)
    controller = PolicyController(policy)
    for _ in range(2):
        drive = simulate(controller, Surrogate(N, torch.device("cpu")), routes, draws)
        np.testing.assert_array_equal(drive.actions[100:499], steering[100:499])


def test_the_memory_is_carried_along_the_drive(make_policy):
    policy = make_policy(core="gru", core_size=8)
    routes, draws, (steering, _), _ = stepped(policy, "compact", "delta")
    forgetful = PolicyController(policy)
    remembers = policy.act
    policy.act = lambda obs, memory, starts: remembers(obs, policy.initial_memory(N), starts)
    drive = simulate(forgetful, Surrogate(N, torch.device("cpu")), routes, draws)
    assert np.abs(drive.actions[100:499] - steering[100:499]).max() > 0.01


def test_the_recorded_steering_is_hidden_from_it(make_policy):
    policy = make_policy()
    routes, draws, _, _ = stepped(policy, "compact", "delta")

    class Watched(PolicyController):
        def update(self, *told):
            commands.append(super().update(*told))
            return commands[-1]

    answers = []
    for steer in (routes.steer, routes.steer + 1.0):  # another past that leads to the same lateral acceleration
        commands = []
        other = type(routes)(routes.keys, routes.target, routes.roll, routes.v, routes.a, steer)
        simulate(Watched(policy), Surrogate(N, torch.device("cpu")), other, draws)
        answers.append(np.array(commands))
    first = CONTROL_START - 20
    np.testing.assert_array_equal(answers[0][: first + 1], answers[1][: first + 1])
    assert (answers[0][first + 5] != answers[1][first + 5]).any()  # the car itself did not forget


def test_modes_that_do_not_exist_or_fit(make_policy):
    with pytest.raises(ConfigError, match="action='brake'; allowed are delta, absolute, pid_residual"):
        PolicyController(make_policy(), action="brake")
    with pytest.raises(ConfigError, match="256"):
        PolicyController(make_policy(), observation="full256")


def test_a_run_says_how_it_sees_and_steers(make_run, run, monkeypatch):
    folder = make_run("other", observation="full256", action="absolute")
    told = []
    monkeypatch.setattr(PolicyController, "__init__", lambda self, policy, **modes: told.append(modes))
    load_controller(folder)
    load_controller(run, at=800)
    assert told == [
        {"observation": "full256", "action": "absolute"},
        {"observation": "compact", "action": "delta"},
    ]
    with pytest.raises(RunError, match="no checkpoint at 5"):
        load_controller(run, at=5)


def test_a_run_is_found_by_its_name(run, tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text(f"run: {{root: '{run.parent}'}}\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_controller("steers"), PolicyController)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"env.id": "ppo_lab/CartPole-v1", "env.kwargs": {}}, "was trained on ppo_lab/CartPole-v1"),
        ({"env.frame_stack": 2}, "frame_stack"),
    ],
)
def test_runs_that_make_no_controller(settings, text, make_run):
    with pytest.raises(RunError, match=text):
        load_controller(make_run("not-this", settings))
