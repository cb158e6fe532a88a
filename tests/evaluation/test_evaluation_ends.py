"""Evaluation ends in every environment, is unbiased where episodes are cut off, and can be stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st

from ppo_lab.cli.main import main
from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.envs.adapters.single import SingleEnvs
from ppo_lab.envs.adapters.vector import VectorEnvs
from ppo_lab.errors import ConfigError
from ppo_lab.evaluation import EvaluationStopped, evaluate, run_episodes
from ppo_lab.evaluation.evaluate import MAX_STEPS
from ppo_lab.training.trainer import Trainer
from tests.evaluation.test_evaluate import Constant, Counting, ScriptedEnvs, assert_equal

EVER = 10**9


class Rounds(ScriptedEnvs):
    """The same environments, but episode k of environment i after reset r lasts lengths(r, i, k) steps."""

    def __init__(self, num_envs: int, lengths: Callable[[int, int, int], int], next_step_autoreset: bool = False):
        super().__init__(num_envs, lambda i, k: lengths(len(self.seeds) - 1, i, k), next_step_autoreset)
        self.seeds, self.steps = [], 0

    def reset(self, seed: int):
        self.seeds.append(seed)
        for flag in self.buffers[2:4]:
            flag.zero_()
        self.buffers.valid.fill_(True)
        return super().reset(seed)

    def step(self, action):
        self.steps += 1
        return super().step(action)


def by_hand(episodes: int, num_envs: int, lengths: Callable[[int, int, int], int], limit: int) -> list[tuple]:
    """Return the expected (length, terminated, cut off) of the episodes that count, by environment."""
    played = []
    for i in range(num_envs):
        mine: list[tuple] = []
        quota, reset, k = episodes // num_envs + (i < episodes % num_envs), 0, 0
        while len(mine) < quota:
            length = lengths(reset, i, k)
            if length > limit:
                mine.append((limit, False, True))
                reset, k = reset + 1, 0  # it waits for the others
            else:
                mine.append((length, k % 2 == 0, False))
                k += 1
        played += mine
    return played


@given(
    st.integers(1, 13),
    st.integers(1, 5),
    st.booleans(),
    st.integers(1, 7),
    st.lists(st.lists(st.lists(st.sampled_from([1, 2, 5, 7, EVER]), min_size=1, max_size=4), min_size=5, max_size=5),
             min_size=1, max_size=3),
)  # fmt: skip
def test_every_quota_is_played_whatever_is_cut_off(episodes, num_envs, next_step_autoreset, limit, script):
    def lengths(reset: int, i: int, k: int) -> int:
        row = script[reset % len(script)][i]
        return row[k % len(row)]

    envs = Rounds(num_envs, lengths, next_step_autoreset)
    result = run_episodes(Counting(), envs, episodes, max_steps=limit)
    expected = by_hand(episodes, num_envs, lengths, limit)
    assert list(zip(*(rows.tolist() for rows in result[1:]), strict=True)) == expected
    np.testing.assert_array_equal(result.returns, [n * (n + 1) / 2 for n, _, _ in expected])  # memory was reset
    assert envs.steps <= 2 * episodes * (limit + 1)
    assert envs.seeds[0] == 1
    assert len(set(envs.seeds)) == len(envs.seeds)
    assert all(0 <= seed < 2**31 for seed in envs.seeds)
    again = run_episodes(Counting(), Rounds(num_envs, lengths, next_step_autoreset), episodes, max_steps=limit)
    assert_equal(result, again)


def test_episodes_that_end_by_themselves_are_what_they_were():
    def play(**limit):
        envs = Rounds(3, lambda r, i, k: 1 + (i + 2 * k) % 4)
        return run_episodes(Constant(), envs, 10, deterministic=False, **limit), envs

    free, envs = play()
    assert len(envs.seeds) == 1
    assert not free.cut_off.any()
    exactly, _ = play(max_steps=4)  # the longest ones end with their last step
    assert_equal(free, exactly)


def test_short_episodes_are_not_over_represented_beside_endless_ones():
    """A quarter of the episodes never end: with a limit of 40 the mean length is 3/4 x 4 + 1/4 x 40 = 13."""
    lengths = []
    for seed in range(40):
        draws = np.random.default_rng(seed).integers(0, 4, (12, 8, 12))
        envs = Rounds(8, lambda r, i, k, draws=draws: EVER if draws[r, i, k] == 0 else 4)
        lengths.extend(run_episodes(Constant(), envs, 24, max_steps=40).lengths)
    deviation = np.sqrt(0.75 * 0.25) * 36
    assert abs(np.mean(lengths) - 13.0) < 3 * deviation / np.sqrt(len(lengths))


def test_without_a_limit_it_is_ten_thousand():
    assert MAX_STEPS == 10_000
    result = run_episodes(Constant(), Rounds(2, lambda r, i, k: EVER if i else 3), 3)
    assert result.lengths.tolist() == [3, 3, 10_000]
    assert result.cut_off.tolist() == [False, False, True]
    assert not result.terminated[2]


@pytest.mark.parametrize(("claimed", "last"), [(40, 10_000), (7_000, 14_000)])
def test_a_limit_that_is_claimed_and_not_kept_does_not_hang(claimed, last):
    envs = Rounds(1, lambda r, i, k: EVER)
    envs.max_episode_steps = claimed
    assert run_episodes(Constant(), envs, 1).lengths.tolist() == [last]


def test_a_limit_of_the_environment_above_ours_is_kept():
    envs = Rounds(1, lambda r, i, k: 15_000)
    envs.max_episode_steps = 15_000
    result = run_episodes(Constant(), envs, 1)
    assert (result.lengths.tolist(), result.cut_off.tolist()) == ([15_000], [False])


def test_rows_that_are_never_experience_do_not_hang():
    class Nothing(Rounds):
        def step(self, action):
            return super().step(action)._replace(valid=torch.zeros(self.num_envs, dtype=torch.bool))

    result = run_episodes(Constant(), Nothing(2, lambda r, i, k: 3), 4, max_steps=9)
    assert result.cut_off.all()
    assert result.lengths.tolist() == [0] * 4


class Endless(gymnasium.Env):
    """An environment whose episodes never end, or last three steps if its seed is odd. The reward is 1."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.ends = 0, bool(self.np_random.integers(2))
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), 1.0, self.ends and self.t == 3, False, {}


class Zero(Constant):
    def act(self, obs, memory, starts, *, deterministic, generator):
        return torch.zeros(len(obs), dtype=torch.long), memory


@pytest.mark.parametrize("mode", [None, *AutoresetMode])
def test_every_kind_of_environment_ends(mode):
    def make():
        if mode is None:
            return SingleEnvs([Endless() for _ in range(4)])
        return VectorEnvs(SyncVectorEnv([Endless] * 4, autoreset_mode=mode))

    results = []
    for _ in range(2):
        envs = make()
        results.append(run_episodes(Zero(), envs, 30, seed=3, max_steps=11))
        envs.close()
    assert_equal(*results)
    result = results[0]
    assert result.cut_off.any()
    assert result.terminated.any()
    assert set(zip(result.lengths.tolist(), result.cut_off.tolist(), strict=True)) == {(3, False), (11, True)}
    np.testing.assert_array_equal(result.returns, result.lengths)


@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_below_one_is_refused(value):
    with pytest.raises(ConfigError, match=f"max_steps: at least 1, got {value}"):
        evaluate(Constant(), "CartPole-v1", max_steps=value)


# ---- stop ------------------------------------------------------------------------------------------------------------


def test_stop_is_asked_before_every_step_and_closes_what_was_made():
    closed, asked = [], []

    class Watched(Endless):
        def close(self):
            closed.append(self)

    def stop() -> bool:
        asked.append(None)
        return len(asked) > 7

    with pytest.raises(EvaluationStopped, match=r"\d of 5 episodes were played"):
        evaluate(Zero(), "unused", 5, env_factory=lambda i: Watched(), stop=stop)
    assert len(asked) == 8
    assert len(closed) == 6  # five that played, and one that was made to check for masks


def test_stop_that_never_comes_is_asked_once_a_step():
    asked = []
    envs = Rounds(2, lambda r, i, k: 4)
    run_episodes(Constant(), envs, 4, stop=lambda: bool(asked.append(None)))
    assert len(asked) == envs.steps == 8


# ---- while it trains, and on the command line ------------------------------------------------------------------------


class Stays(Endless):
    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}


def config(**more) -> Config:
    base = {
        "env.num_envs": 2, "model.hidden_sizes": [8], "ppo.num_steps": 16, "ppo.total_timesteps": 96, "run.root": None,
        "run.eval_every": 32, "run.eval_episodes": 3,
    }  # fmt: skip
    return override(Config(), {**base, **more})


def test_evaluation_in_training_ends_and_says_once_that_it_was_cut_off(caplog):
    trainer = Trainer(config(**{"run.eval_max_steps": 20}), envs=lambda i: Stays())
    with caplog.at_level(logging.WARNING, logger="ppo_lab"):
        rows = [update.metrics for update in trainer]
    assert [row["eval/cut_off"] for row in rows] == [3.0] * 3
    said = [record.getMessage() for record in caplog.records if "cut off" in record.getMessage()]
    assert len(said) == 1
    assert "all 3 episodes were cut off after 20 steps (run.eval_max_steps)" in said[0]
    assert "\n" not in said[0]


def test_evaluation_in_training_says_nothing_where_episodes_end(caplog):
    trainer = Trainer(config(**{"env.id": "ppo_lab/CartPole-v1"}))
    with caplog.at_level(logging.WARNING, logger="ppo_lab"):
        rows = [update.metrics for update in trainer]
    assert [row["eval/cut_off"] for row in rows] == [0.0] * 3
    assert not caplog.records


def test_the_setting_changes_what_is_measured():
    def measured(limit):
        trainer = Trainer(config(**{"env.id": "ppo_lab/CartPole-v1", "run.eval_max_steps": limit}))
        return [update.metrics["eval/return_mean"] for update in trainer]

    assert measured(5) == [5.0] * 3
    assert measured(5) != measured(None)


def test_the_command_line_says_how_many_were_cut_off(tmp_path, capsys):
    settings = {"env.id": "ppo_lab/CartPole-v1", "run.root": str(tmp_path), "run.name": "x", "run.eval_every": 0}
    trainer = Trainer(config(**settings))
    for _ in trainer:
        pass
    trainer.close()
    assert main(["evaluate", str(tmp_path / "x"), "--episodes", "4", "--max-steps", "6"]) == 0
    assert "\n4 of 4 cut off after 6 steps" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "x"), "--episodes", "4"]) == 0
    assert "cut off" not in capsys.readouterr().out
