"""Running statistics in environments: refused by name in env.wrappers, and told of where they come another way."""

from __future__ import annotations

import logging

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, RecordEpisodeStatistics, TimeLimit
from gymnasium.wrappers import vector as vector_wrappers

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.envs.adapters.maker import INSTEAD, find_wrapper
from ppo_lab.envs.adapters.running_statistics import find_statistics
from ppo_lab.envs.adapters.vector import VectorEnvs
from ppo_lab.envs.making import make_envs
from ppo_lab.errors import ConfigError
from ppo_lab.evaluation import evaluate
from ppo_lab.training.trainer import Trainer

SMALL = {
    "env.id": "CartPole-v1", "env.num_envs": 2, "model.hidden_sizes": [8], "ppo.num_steps": 8,
    "ppo.total_timesteps": 32, "run.root": None,
}  # fmt: skip


def config(**more) -> Config:
    return override(Config(), {**SMALL, **more})


class Moments:
    def __init__(self):
        self.mean, self.var, self.count = np.zeros(2), np.ones(2), 1e-4


class Slotted:
    __slots__ = ("m2", "mean", "n")

    def __init__(self):
        self.mean, self.m2, self.n = 0.0, 0.0, 0


class Own(gymnasium.Wrapper):
    """A user's own, with an attribute of some name."""

    def __init__(self, env, **attributes):
        super().__init__(env)
        self.__dict__ |= attributes


def cartpole(*_):
    return gymnasium.make("CartPole-v1")


KEEPS = {
    "NormalizeObservation.obs_rms": lambda i: NormalizeObservation(cartpole()),
    "NormalizeReward.return_rms": lambda i: TimeLimit(NormalizeReward(cartpole()), 50),
    "Own._running_mean": lambda i: Own(cartpole(), _running_mean=np.zeros(4)),
    "Own.scaler": lambda i: Own(RecordEpisodeStatistics(cartpole()), scaler=Moments()),
    "Own.welford": lambda i: Own(cartpole(), welford=Slotted()),
    "Own.by_key": lambda i: Own(cartpole(), by_key={"speed": Moments()}),
    "Own.mean": lambda i: Own(cartpole(), mean=0.0, var=1.0, count=0),
}


@pytest.mark.parametrize("name", INSTEAD)
@pytest.mark.parametrize("entry", ["text", "keywords"])
def test_the_known_ones_are_refused_in_one_line_that_names_the_setting(name, entry):
    wrappers = [name if entry == "text" else {name: {"epsilon": 1e-8}}]
    with pytest.raises(ConfigError, match=f"env.wrappers: {name} keeps .* set {INSTEAD[name]} to true") as error:
        make_envs(config(**{"env.wrappers": wrappers}))
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=INSTEAD[name]):
        Trainer(config(**{"env.wrappers": [{"ClipReward": {"min_reward": -1.0}}, *wrappers]}))


def test_the_known_ones_are_all_that_gymnasium_has():
    """Every other wrapper by name has no attribute with running statistics."""
    found = set()
    for name in gymnasium.wrappers.__all__:
        if name == "vector" or name in INSTEAD:
            continue
        try:
            env = find_wrapper(name)(cartpole())
        except Exception:  # needs keywords or packages; read through by hand for Gymnasium 1.4
            continue
        if find_statistics(env):
            found.add(name)
        env.close()
    assert found == {"NormalizeReward"}  # a resumed run has its statistics, and no policy needs them


@pytest.mark.parametrize("place", KEEPS)
def test_it_is_found_wherever_it_is(place):
    assert find_statistics(KEEPS[place](0)) == place


def test_vector_wrappers_are_found():
    envs = vector_wrappers.NormalizeObservation(SyncVectorEnv([cartpole] * 2))
    assert VectorEnvs(envs).running_statistics == "NormalizeObservation.obs_rms"
    inside = SyncVectorEnv([lambda: NormalizeReward(cartpole())] * 2)
    assert VectorEnvs(inside).running_statistics == "NormalizeReward.return_rms"


class Innocent(gymnasium.Env):
    """Has a mean, a std and a number n as every bandit, arrays, a module and a distribution."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.mean, self.std, self.n, self.count, self.history = 0.0, 1.0, 5, 0, [1, 2]
        self.table, self.numpy, self.obs_rms = np.ones(3), np, None
        self.settings = {"mean": 0.0, "std": 1.0, "count": 3}
        self.env_of_mine = "text"


@pytest.mark.parametrize("make", [Innocent, lambda: RecordEpisodeStatistics(cartpole())])
def test_what_keeps_none_is_not_suspected(make):
    assert find_statistics(make()) is None


def test_a_ring_of_wrappers_has_an_end():
    one, other = Innocent(), Innocent()
    one.env, other.env = other, one
    assert find_statistics(one) is None


def said(caplog) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if "running statistics" in record.getMessage()]
    caplog.clear()
    return lines


def scaled(i: int) -> gymnasium.Env:
    return Own(cartpole(), scaler=Moments())


@pytest.mark.parametrize("more", [{}, {"env.workers": 2}, {"env.frame_stack": 2}])
def test_training_and_evaluation_say_it_once_each(caplog, more):
    evaluating = {} if "env.workers" in more else {"run.eval_every": 16, "run.eval_episodes": 2}  # processes take long
    settings = config(**evaluating, **more)
    with caplog.at_level(logging.WARNING, logger="ppo_lab"):
        trainer = Trainer(settings, envs=scaled)
        (line,) = said(caplog)
        assert line.startswith("Own.scaler keeps running statistics")
        assert "evaluation starts with fresh ones" in line
        assert "model.normalize_obs" in line
        assert "\n" not in line
        for _ in trainer:
            pass
        assert not said(caplog)
        evaluate(trainer.policy(), settings, 2, env_factory=scaled)
        assert said(caplog) == [line]
        trainer.close()


def test_nothing_is_said_of_others(caplog):
    with caplog.at_level(logging.WARNING, logger="ppo_lab"):
        trainer = Trainer(config(), envs=cartpole)
        evaluate(trainer.policy(), config(), 2, env_factory=cartpole)
    assert not caplog.records
