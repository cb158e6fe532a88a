"""Gymnasium sees the same environments: registered, checked, reproducible, with its infos at an ending."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from environment import BATCHED
from ppo_lab.errors import EnvError

CARTPOLE = "ppo_lab/CartPole-v1"


@pytest.mark.parametrize("env_id", BATCHED)
def test_gymnasiums_checker_has_nothing_to_say(env_id):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(gymnasium.make(env_id).unwrapped)
    unbounded = env_id == CARTPOLE  # its velocities are, in Gymnasium's own as well
    assert all(unbounded and "infinity" in str(warning.message) for warning in said)


@pytest.mark.parametrize("env_id", BATCHED)
def test_the_vector_view_is_the_batched_program(env_id):
    envs, view = BATCHED[env_id](num_envs=8), gymnasium.make_vec(env_id, num_envs=8)
    obs, infos = view.reset(seed=3)
    np.testing.assert_array_equal(obs, envs.reset(seed=3))
    assert infos == {}
    view.action_space.seed(0)
    endings = 0
    for _ in range(450 if env_id.startswith("ppo_lab/Lateral") else 60):
        action = view.action_space.sample()
        obs, reward, terminated, truncated, infos = view.step(action)
        step = envs.step(torch.as_tensor(action))
        for theirs, ours in ((obs, step.obs), (reward, step.reward)):
            np.testing.assert_array_equal(theirs, ours)
        for theirs, ours in ((terminated, step.terminated), (truncated, step.truncated)):
            np.testing.assert_array_equal(theirs, ours)
        assert obs in view.observation_space
        done = terminated | truncated
        endings += done.sum()
        assert bool(infos) == done.any()
        if infos:
            np.testing.assert_array_equal(infos["_final_obs"], done)
            for i in np.flatnonzero(done):
                np.testing.assert_array_equal(infos["final_obs"][i], step.final_obs[i])
    assert endings
    view.close()


def test_infos_look_like_those_of_sync_vector_env():
    ours = gymnasium.make_vec(CARTPOLE, num_envs=4, max_episode_steps=5)
    mode = {"autoreset_mode": AutoresetMode.SAME_STEP}
    theirs = gymnasium.make_vec(CARTPOLE, 4, vectorization_mode="sync", vector_kwargs=mode, max_episode_steps=5)
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    assert ours.single_observation_space == theirs.single_observation_space
    infos = []
    for view in (ours, theirs):
        view.reset(seed=0)
        for _ in range(5):
            *_, truncated, info = view.step(np.zeros(4, dtype=np.int64))
        assert truncated.all()
        infos.append(info)
    assert infos[0].keys() == infos[1].keys()
    for key, value in infos[1].items():
        assert type(infos[0][key]) is type(value)
    assert infos[0]["final_obs"].dtype == infos[1]["final_obs"].dtype == object
    assert infos[0]["final_obs"][0].shape == (4,)


def test_statistics_wrapper_counts_whole_episodes():
    view = gymnasium.wrappers.vector.RecordEpisodeStatistics(gymnasium.make_vec(CARTPOLE, 4, max_episode_steps=6))
    view.reset(seed=0)
    lengths = []
    for _ in range(18):
        *_, infos = view.step(np.array([0, 1, 0, 1]))
        if "episode" in infos:
            lengths += infos["episode"]["l"][infos["_episode"]].tolist()
    assert lengths == [6] * 12


def test_the_single_view_is_one_of_the_batch():
    env, envs = gymnasium.make(CARTPOLE), BATCHED[CARTPOLE](num_envs=1)
    obs, _ = env.reset(seed=11)
    np.testing.assert_array_equal(obs, envs.reset(seed=11)[0])
    terminated = False
    while not terminated:
        obs, reward, terminated, truncated, info = env.step(np.int64(1))
        step = envs.step(torch.tensor([1]))
        np.testing.assert_array_equal(obs, step.final_obs[0])
        assert (reward, terminated, truncated, info) == (1.0, step.terminated.item(), False, {})
    with pytest.raises(EnvError, match="call reset"):
        env.step(1)


@pytest.mark.parametrize("make", [lambda: gymnasium.make(CARTPOLE), lambda: gymnasium.make_vec(CARTPOLE, num_envs=2)])
def test_a_seed_starts_a_stream_and_none_goes_on_with_it(make):
    def resets(env, seeds):
        return [env.reset(seed=seed)[0].tolist() for seed in seeds]

    first = resets(make(), [7, None, None])
    env = make()
    assert resets(env, [7, None, None]) == first
    assert resets(env, [7, None, None]) == first
    assert len({str(obs) for obs in first}) == 3
    assert resets(env, [8]) != first[:1]


def test_the_time_limit_is_the_environments_own():
    env = gymnasium.make(CARTPOLE)
    assert "TimeLimit" not in str(env)
    assert env.spec.reward_threshold == 475.0
    env = gymnasium.make(CARTPOLE, render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    for t in range(1, 501):
        obs, _, terminated, truncated, _ = env.step(int(obs @ [0.1, 0.3, 3.0, 1.0] > 0))
        assert (terminated, truncated) == (False, t == 500)
    assert env.render().shape == (200, 300, 3)


def test_what_a_caller_keeps_stays():
    view = gymnasium.make_vec(CARTPOLE, num_envs=2)
    obs, _ = view.reset(seed=0)
    kept = obs.copy()
    *first, _ = view.step(np.array([0, 1]))
    copies = [x.copy() for x in first]
    for _ in range(30):
        view.step(np.array([0, 1]))
    np.testing.assert_array_equal(obs, kept)
    for before, now in zip(copies, first, strict=True):
        np.testing.assert_array_equal(before, now)


def test_pictures_of_a_batch():
    view = gymnasium.make_vec(CARTPOLE, num_envs=2, render_mode="rgb_array")
    view.reset(seed=0)
    assert [frame.shape for frame in view.render()] == [(200, 300, 3)] * 2
    assert gymnasium.make_vec(CARTPOLE, num_envs=2).render() is None


def test_what_cannot_be_is_said():
    with pytest.raises(EnvError, match="take none"):
        gymnasium.make(CARTPOLE).reset(options={"low": -0.1})
    with pytest.raises(EnvError, match="render_mode='rgb_array'"):
        gymnasium.make("ppo_lab/ValueOnly-v0", render_mode="rgb_array")
    with pytest.raises(EnvError, match="ours are ppo_lab/CartPole-v1"):
        gymnasium.make(CARTPOLE, env_id="ppo_lab/CartPol-v1")
