"""A policy for use: one observation gives one action, and all ways to call it agree."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from ppo_lab.config import Config, ModelConfig
from ppo_lab.config.loading import override
from ppo_lab.errors import ConfigError
from ppo_lab.evaluation.policy import Policy, load_policy
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.training.trainer import Trainer


def policy(obs=None, action=None, **settings):
    torch.manual_seed(0)
    obs = obs or spaces.Box(-1, 1, (4,), np.float32)
    return Policy(ActorCritic(ModelConfig(**settings), obs, action or spaces.Discrete(3, start=2)))


def test_one_in_one_out_and_a_batch_in_a_batch_out():
    p = policy(normalize_obs=True)
    obs = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    batch = p.predict(obs)
    assert batch.shape == (6,)
    for i in range(6):
        assert p.predict(obs[i]).shape == ()
        assert p.predict(obs[i]) == batch[i]
    assert torch.equal(p.predict(torch.as_tensor(obs)), torch.as_tensor(batch))
    assert set(batch.tolist()) <= {2, 3, 4}


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1"])
def test_the_one_line_loop_works(env_id):
    env = gymnasium.make(env_id)
    p = policy(env.observation_space, env.action_space)
    obs, _ = env.reset(seed=0)
    for _ in range(5):
        assert env.action_space.contains(p.predict(obs))
        obs, *_ = env.step(p.predict(obs, deterministic=False))
    env.close()


def test_deterministic_is_the_mode_and_sampling_repeats_with_its_seed():
    p, q = policy(), policy()
    obs = np.zeros((200, 4), np.float32)
    assert len(set(p.predict(obs).tolist())) == 1
    first = p.predict(obs, deterministic=False)
    assert len(set(first.tolist())) == 3
    assert np.array_equal(first, q.predict(obs, deterministic=False))


two = spaces.Discrete(2), spaces.Box(-1, 1, (2,), np.float32)
SHAPED = {
    "numbered keys": spaces.Dict({"0": two[0], "1": two[1]}),
    "tuple": spaces.Tuple(two),
    "tuple of one": spaces.Tuple(two[:1]),
    "slashes": spaces.Dict({"arm/left": two[0], "arm/right": two[1]}),
    "deep": spaces.Dict({"arms": spaces.Tuple((spaces.Dict({"0": two[0]}), spaces.Tuple(two))), "0": two[0]}),
}


class Shaped(gymnasium.Env):
    """An environment that checks that actions are in its space. An episode lasts 4 steps."""

    def __init__(self, action_space):
        self.observation_space, self.action_space = spaces.Box(-1, 1, (4,), np.float32), action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(4, np.float32), {}

    def step(self, action):
        assert same_structure(action, self.action_space.sample())
        self.steps += 1
        return np.zeros(4, np.float32), 1.0, self.steps == 4, False, {}


def same_structure(one, other):
    if isinstance(other, dict):
        return type(one) is dict and set(one) == set(other) and all(same_structure(one[k], other[k]) for k in other)
    if isinstance(other, tuple):
        return type(one) is tuple and len(one) == len(other) and all(map(same_structure, one, other))
    return np.shape(one) == np.shape(other)


@pytest.mark.parametrize("name", SHAPED)
def test_actions_come_as_the_action_space_has_them(name, tmp_path):
    settings = {"ppo.total_timesteps": 8, "ppo.num_steps": 4, "ppo.num_minibatches": 1, "env.num_envs": 2,
                "run.root": str(tmp_path), "run.name": "one"}  # fmt: skip
    trainer = Trainer(override(Config(), settings), envs=lambda _: Shaped(SHAPED[name]))
    list(trainer)
    trainer.close()
    obs = np.zeros(4, np.float32)
    for p in (trainer.policy(), load_policy(tmp_path / "one")):
        action = p.predict(obs)
        assert same_structure(action, SHAPED[name].sample())
        assert SHAPED[name].contains(action)


def test_a_wrong_shape_is_named():
    with pytest.raises(ConfigError, match=r"one observation has shape \(4,\), got \(3,\)"):
        policy().predict(np.zeros(3, np.float32))


def test_float64_observations_are_as_good():
    p = policy()
    obs = np.random.default_rng(0).normal(size=(5, 4))
    assert np.array_equal(p.predict(obs), p.predict(obs.astype(np.float32)))
