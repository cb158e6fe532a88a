"""env.retry: an environment that raises is recreated, its episode truncated; after too many in a row it is an error."""

from __future__ import annotations

import re
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from ppo_lab import ConfigError, EnvError, NonFiniteError, Trainer, evaluate, make_envs, override
from ppo_lab.config import Config
from ppo_lab.envs.adapters.loop import episode_seed
from tests.scripted_envs import SeededEnv


class Simulator(gymnasium.Env):
    """Shows (which object, step), 5 steps an episode. Raises at the steps in `dies`, counted over all objects."""

    observation_space, action_space = spaces.Box(-99, 99, (2,), np.float32), spaces.Discrete(2)
    metadata: ClassVar = {"render_modes": []}
    made: ClassVar[list] = []
    dies: ClassVar[set] = set()
    in_reset: ClassVar[set] = set()
    steps = resets = 0

    def __init__(self):
        self.number, self.closed, self.broken = len(Simulator.made), 0, False
        Simulator.made.append(self)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        Simulator.resets += 1
        if Simulator.resets in Simulator.in_reset:
            raise TimeoutError("no answer\nfrom port 41451")
        self.t = 0
        return self.show(), {}

    def show(self):
        return np.array([self.number, self.t], np.float32)

    def step(self, action):
        Simulator.steps += 1
        if Simulator.steps in Simulator.dies:
            self.broken = True
            raise ConnectionError("simulator at port 41451 does not answer")
        self.t += 1
        return self.show(), 1.0, self.t >= 5, False, {}

    def close(self):
        self.closed += 1
        if self.broken:
            raise OSError("it is gone")


@pytest.fixture
def simulator():
    Simulator.made.clear()
    Simulator.dies, Simulator.in_reset, Simulator.steps, Simulator.resets = set(), set(), 0, 0
    return Simulator


def config(**settings):
    base = {"run.root": None, "ppo.num_steps": 16, "ppo.total_timesteps": 64, "model.hidden_sizes": [8]}
    # without masks to look for, no object is made but those that are stepped
    return override(Config(), {**base, "env.num_envs": 2, "env.mask_from_info": False, **settings})


def stepped(envs, count):
    """(reward, terminated, truncated, final observation, next observation) of environment 1."""
    rows = []
    for _ in range(count):
        step = envs.step(torch.zeros(2, dtype=torch.int64))
        assert step.valid.all()
        rows.append((float(step.reward[1]), bool(step.terminated[1]), bool(step.truncated[1]),
                     step.final_obs[1].tolist(), step.obs[1].tolist()))  # fmt: skip
    return rows


def test_the_episode_is_cut_off_and_the_next_begins_in_a_new_object(simulator, caplog):
    envs = make_envs(config(**{"env.retry": 1}), env_factory=simulator)
    assert envs.reset(1).tolist() == [[0, 0], [1, 0]]
    simulator.dies = {6}  # the third step of environment 1
    assert stepped(envs, 5) == [
        (1.0, False, False, [1, 1], [1, 1]),
        (1.0, False, False, [1, 2], [1, 2]),
        (0.0, False, True, [1, 2], [2, 0]),  # by hand: nothing paid, led to what was seen last, object 2 from now on
        (1.0, False, False, [2, 1], [2, 1]),
        (1.0, False, False, [2, 2], [2, 2]),
    ]
    assert [env.closed for env in simulator.made] == [0, 1, 0]
    assert envs.retries() == 1
    text = r"environment 1 raised ConnectionError: simulator at port 41451 does not answer at its step 3 \(action 0, .*"
    assert len(caplog.records) == 1
    assert re.fullmatch(
        text + r"and was recreated; its episode is truncated \(env.retry\)", caplog.records[0].getMessage()
    )
    assert re.fullmatch(text + "and was recreated", envs.why_inexact_now())


def test_without_it_nothing_is_tried(simulator):
    envs = make_envs(config(), env_factory=simulator)
    envs.reset(1)
    simulator.dies = {2}
    with pytest.raises(EnvError, match=r"^environment 1 raised ConnectionError: .* episode seed \d+\)$"):
        stepped(envs, 1)
    assert (len(simulator.made), envs.retries(), envs.why_inexact_now()) == (2, 0, None)


def test_so_often_in_a_row_without_a_finished_episode(simulator):
    envs = make_envs(config(**{"env.retry": 2}), env_factory=simulator)
    envs.reset(1)
    simulator.dies = {2, 4, 2 + 2 * 2 + 5 * 2 + 2, 100}  # twice, then a whole episode, then once
    stepped(envs, 12)
    assert envs.retries() == 3
    simulator.dies = set(range(simulator.steps + 2, 1000, 2))  # and now always
    with pytest.raises(EnvError, match=r"was recreated 2 times in a row without a finished episode \(env.retry\)"):
        stepped(envs, 4)
    with pytest.raises(EnvError, match=r"call reset\(\) before the first step"):
        stepped(envs, 1)


def test_a_reset_that_raises_is_tried_again_with_the_same_seed(simulator):
    envs = make_envs(config(**{"env.retry": 2}), env_factory=simulator)
    simulator.in_reset = {2, 3}  # the first two of environment 1
    assert envs.reset(1).tolist() == [[0, 0], [3, 0]]
    assert envs.retries() == 2
    assert simulator.made[3].np_random_seed == episode_seed(1, 1, 0)
    simulator.in_reset = {simulator.resets + 1, simulator.resets + 2, simulator.resets + 3}
    with pytest.raises(
        EnvError, match=r"environment 0 raised TimeoutError: no answer from port 41451 .*2 times in a row"
    ):
        envs.reset(1)


def test_a_simulator_that_cannot_be_made_again(simulator):
    alive = [True] * 2

    def make():
        if not alive:
            raise ValueError("licence")
        alive.pop()
        return simulator()

    envs = make_envs(config(**{"env.retry": 3}), env_factory=make)
    envs.reset(1)
    simulator.dies = {2}
    with pytest.raises(EnvError, match=r"ConnectionError.*recreated 3 times in a row .*, the last time with .*licence"):
        stepped(envs, 1)


def test_it_has_to_be_another_object_of_the_same_kind(simulator):
    made = [simulator(), simulator()]
    envs = make_envs(config(**{"env.retry": 1}), env_factory=lambda i: made[i])
    envs.reset(1)
    simulator.dies = {2}
    with pytest.raises(EnvError, match=r"env.retry: env_factory\(1\) returned the same object again"):
        stepped(envs, 1)
    made[1] = SeededEnv()
    envs.reset(1)
    simulator.dies = {simulator.steps + 2}
    envs._loop._envs[1], envs._loop._steps[1] = simulator.made[1], simulator.made[1].step
    with pytest.raises(EnvError, match=r"env.retry: the new environment has other spaces"):
        stepped(envs, 1)


@pytest.mark.parametrize("kind", ["nan reward", "nan obs", "no reward", "shape", "four"])
def test_an_answer_that_is_no_step_is_not_tried_again(kind):
    faults = ((episode_seed(9, 0, 0), 1, kind),)
    envs = make_envs(config(**{"env.retry": 5, "env.num_envs": 1}), env_factory=lambda: SeededEnv(faults))
    envs.reset(9)
    with pytest.raises((EnvError, NonFiniteError), match="environment 0 returned"):
        envs.step(torch.tensor([5]))
    assert envs.retries() == 0


def test_settings_without_single_environments():
    for settings in ({"env.id": "ppo_lab/CartPole-v1"}, {"env.id": "CartPole-v1", "env.vector": True}):
        with pytest.raises(ConfigError, match=r"env.retry: it is for single environments"):
            make_envs(config(**{"env.retry": 1, **settings}))


def faulty(index):
    return SeededEnv(faults=((episode_seed(9, 1, 0), 2, "raise"), (episode_seed(9, 2, 1), 3, "raise")))


def played(workers):
    settings = {"env.retry": 1, "env.workers": workers, "env.num_envs": 3, "env.frame_stack": 2}
    envs = make_envs(config(**settings), env_factory=faulty)
    rows = [envs.reset(9).clone()]
    for _ in range(20):
        step = envs.step(torch.full((3,), 6))
        rows += [one.clone() for one in step]
    told = envs.retries(), envs.why_inexact_now()
    saved = envs.state_dict()
    again = make_envs(config(**settings), env_factory=faulty)
    again.load_state_dict(saved)
    rows += [envs.step(torch.full((3,), 5)).obs.clone(), again.step(torch.full((3,), 5)).obs.clone()]
    assert torch.equal(rows[-1], rows[-2]), "the episodes under way are replayed as ever"
    envs.close()
    again.close()
    return rows, told


def test_workers_do_the_same(caplog):
    here, told = played(0)
    caplog.clear()
    there, theirs = played(2)
    assert all(torch.equal(one, other) for one, other in zip(here, there, strict=True))
    assert told == theirs
    assert told[0] == 2
    assert "environment 1 raised ZeroDivisionError" in told[1]
    assert sum("its episode is truncated" in record.getMessage() for record in caplog.records) == 2


def test_training_and_evaluation_go_on(simulator):
    simulator.dies = {7, 20, 41}
    trainer = Trainer(config(**{"env.retry": 1}), envs=simulator)
    for update in trainer:
        assert update.metrics["episode/return_mean"] <= 5
    assert trainer.envs.retries() == 3
    assert trainer.state.global_step == 64
    simulator.dies = {simulator.steps + 3}
    result = evaluate(trainer.policy(), trainer.config, episodes=4, env_factory=simulator)
    assert sorted(result.returns) == [0.0, 5.0, 5.0, 5.0]
    trainer.close()
