"""Evaluation: exact quotas, no bias, no side effects. Environments and policies are scripted."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from ppo_lab import Trainer
from ppo_lab.config import Config, EnvConfig
from ppo_lab.config.loading import override
from ppo_lab.envs.adapters.loop import episode_seed
from ppo_lab.envs.adapters.single import SingleEnvs
from ppo_lab.envs.contract import Envs, Step
from ppo_lab.errors import ConfigError, EnvError, NonFiniteError
from ppo_lab.evaluation import Evaluation, evaluate, run_episodes

module = importlib.import_module("ppo_lab.evaluation.evaluate")  # the package's `evaluate` is the function


class ScriptedEnvs(Envs):
    """Episode k of environment i lasts lengths(i, k) steps; odd ones end by truncation. The reward is the action.

    Buffers are reused by every step, and reset rows carry a reward of 1000, as a hostile environment might.
    """

    device = torch.device("cpu")
    observation_space = gymnasium.spaces.Box(0.0, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, ())

    def __init__(self, num_envs: int, lengths: Callable[[int, int], int], next_step_autoreset: bool = False) -> None:
        self.num_envs, self.lengths, self.next_step_autoreset = num_envs, lengths, next_step_autoreset
        self.closed = 0
        self.buffers = Step(
            torch.zeros(num_envs, 1), torch.zeros(num_envs), *torch.zeros(2, num_envs, dtype=torch.bool),
            torch.zeros(num_envs, 1), torch.ones(num_envs, dtype=torch.bool),
        )  # fmt: skip

    def reset(self, seed: int) -> Tensor:
        self.seed = seed
        self.episode, self.time = [0] * self.num_envs, [0] * self.num_envs
        self.buffers.obs.zero_()
        return self.buffers.obs

    def step(self, action: Tensor) -> Step:
        obs, reward, terminated, truncated, final_obs, valid = self.buffers
        for i in range(self.num_envs):
            if self.next_step_autoreset and (terminated[i] or truncated[i]):
                obs[i], reward[i], terminated[i], truncated[i], valid[i] = 0.0, 1000.0, False, False, False
                continue
            self.time[i] += 1
            done, odd = self.time[i] == self.lengths(i, self.episode[i]), self.episode[i] % 2 == 1
            reward[i], terminated[i], truncated[i], valid[i] = action[i], done and not odd, done and odd, True
            final_obs[i] = self.time[i]
            if done:
                self.episode[i], self.time[i] = self.episode[i] + 1, 0
            obs[i] = final_obs[i] if self.next_step_autoreset else float(self.time[i])
        return self.buffers

    def close(self) -> None:
        self.closed += 1


class Constant:
    """A policy with the constant action 1; sampled actions are uniform in 0..1."""

    def initial_memory(self, num_envs: int) -> None:
        return None

    def act(self, obs, memory, starts, *, deterministic: bool, generator: Generator | None):
        N = len(obs)
        return (torch.ones(N) if deterministic else torch.rand(N, generator=generator)), memory


class Counting:
    """A recurrent policy: its memory counts the steps since the start of an episode, and so does its action."""

    def initial_memory(self, num_envs: int) -> Tensor:
        return torch.full((num_envs,), 99.0)  # starts must clear it

    def act(self, obs, memory, starts, *, deterministic: bool, generator: Generator | None):
        memory = torch.where(starts, 0.0, memory) + 1.0
        return memory, memory


def expected_episodes(episodes: int, num_envs: int, lengths: Callable[[int, int], int]) -> tuple[list, list]:
    """Return the expected lengths and terminations, by environment, then by episode."""
    quotas = [episodes // num_envs + (1 if i < episodes % num_envs else 0) for i in range(num_envs)]
    played = [(i, k) for i in range(num_envs) for k in range(quotas[i])]
    return [lengths(i, k) for i, k in played], [k % 2 == 0 for _, k in played]


def assert_equal(a: Evaluation, b: Evaluation) -> None:
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


# ---- which episodes count --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 13),
    st.integers(1, 6),
    st.booleans(),
    st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=5), min_size=6, max_size=6),
)
def test_every_environment_plays_its_quota(episodes, num_envs, next_step_autoreset, script):
    def lengths(i: int, k: int) -> int:
        return script[i][k % len(script[i])]

    result = run_episodes(Constant(), ScriptedEnvs(num_envs, lengths, next_step_autoreset), episodes)
    steps, ended = expected_episodes(episodes, num_envs, lengths)
    assert (result.returns.dtype, result.lengths.dtype, result.terminated.dtype) == (np.float64, np.int64, np.bool_)
    assert result.lengths.tolist() == steps
    assert result.returns.tolist() == [float(length) for length in steps]
    assert result.terminated.tolist() == ended


def first_to_end(envs: ScriptedEnvs, episodes: int) -> list[float]:
    """Return the lengths of the first episodes that end in any environment: the naive method."""
    envs.reset(0)
    steps, lengths = [0] * envs.num_envs, []
    while len(lengths) < episodes:
        step = envs.step(torch.ones(envs.num_envs))
        for i in range(envs.num_envs):
            steps[i] += 1
            if step.terminated[i] or step.truncated[i]:
                lengths.append(steps[i])
                steps[i] = 0
    return lengths[:episodes]


def test_short_episodes_are_not_over_represented():
    """Half of all episodes last 1 step, half 101: the mean is 51. The first 16 to end on 16 envs give half of that."""
    ours, naive = [], []
    for seed in range(20):
        draws = np.random.default_rng(seed).integers(0, 2, (16, 200))
        envs = ScriptedEnvs(16, lambda i, k, draws=draws: 1 + 100 * int(draws[i, k]))
        ours.extend(run_episodes(Constant(), envs, episodes=16).returns)
        naive.extend(first_to_end(envs, episodes=16))
    standard_error = 50.0 / np.sqrt(320)
    assert abs(np.mean(ours) - 51.0) < 3 * standard_error
    assert np.mean(naive) < 51.0 - 6 * standard_error


def test_a_fast_environment_does_not_crowd_out_a_slow_one():
    def lengths(i: int, k: int) -> int:
        return (1, 50)[i]

    assert run_episodes(Constant(), ScriptedEnvs(2, lengths), episodes=10).returns.mean() == 25.5
    assert np.mean(first_to_end(ScriptedEnvs(2, lengths), episodes=10)) == 1.0


def test_more_episodes_begin_with_the_same_ones():
    """The first episodes of an environment depend neither on the length of others nor on the number requested."""
    script = np.random.default_rng(1).integers(1, 9, (3, 4))
    few = run_episodes(Constant(), ScriptedEnvs(3, lambda i, k: int(script[i, k % 4])), episodes=6)
    many = run_episodes(Constant(), ScriptedEnvs(3, lambda i, k: int(script[i, k % 4])), episodes=12)
    np.testing.assert_array_equal(few.returns.reshape(3, 2), many.returns.reshape(3, 4)[:, :2])


def test_number_of_environments_does_not_matter_where_all_are_alike():
    results = [run_episodes(Constant(), ScriptedEnvs(n, lambda i, k: 4), episodes=12) for n in (1, 3, 5, 12, 20)]
    for result in results:
        np.testing.assert_array_equal(result.returns, np.full(12, 4.0))


@pytest.mark.parametrize("next_step_autoreset", [False, True])
def test_memory_starts_anew_with_each_episode(next_step_autoreset):
    """Actions count 1, 2, ..., L within each episode, so its return is L (L + 1) / 2."""
    script = np.random.default_rng(2).integers(1, 7, (4, 3))
    envs = ScriptedEnvs(4, lambda i, k: int(script[i, k % 3]), next_step_autoreset)
    L = script.ravel()
    np.testing.assert_array_equal(run_episodes(Counting(), envs, episodes=12).returns, L * (L + 1) / 2)


def test_sums_are_in_double_precision():
    """2^24 + 1 + 1 + 1 is 2^24 in float32."""

    class Loud(Constant):
        def act(self, obs, memory, starts, *, deterministic, generator):
            return torch.where(obs[:, 0] == 0, 2.0**24, 1.0), memory

    assert run_episodes(Loud(), ScriptedEnvs(1, lambda i, k: 4), episodes=1).returns.tolist() == [2**24 + 3]


# ---- random numbers --------------------------------------------------------------------------------------------------


def drawn(seed: int) -> Evaluation:
    return run_episodes(Constant(), ScriptedEnvs(3, lambda i, k: 1 + (i + k) % 4), 9, seed=seed, deterministic=False)


def test_equal_seeds_draw_equal_actions_and_others_do_not():
    assert_equal(drawn(1), drawn(1))
    assert (drawn(1).returns != drawn(2).returns).all()


def test_deterministic_draws_nothing():
    envs = ScriptedEnvs(3, lambda i, k: 5)
    a, b = (run_episodes(Constant(), envs, 6, seed=seed, deterministic=True) for seed in (1, 2))
    assert_equal(a, b)
    assert (drawn(1).returns != drawn(1).lengths).all()


def test_the_environments_get_the_seed_and_actions_another():
    """With the same seed for both, sampled actions would use the random numbers of a torch environment."""
    envs = ScriptedEnvs(1, lambda i, k: 1)
    first = run_episodes(Constant(), envs, 1, seed=5, deterministic=False).returns[0]
    assert envs.seed == 5
    assert first != torch.rand(1, generator=Generator().manual_seed(5)).item()


def test_global_random_numbers_stay_as_they_were():
    torch.manual_seed(3)
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy(), random.getstate()
    result = drawn(1)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    torch.manual_seed(4)
    assert_equal(drawn(1), result)


def test_gradients_stay_on_outside_and_off_inside():
    class Watching(Constant):
        def act(self, obs, memory, starts, *, deterministic, generator):
            assert not torch.is_grad_enabled()
            self.kept = torch.zeros(len(obs))
            return super().act(obs, memory, starts, deterministic=deterministic, generator=generator)

    policy = Watching()
    run_episodes(policy, ScriptedEnvs(2, lambda i, k: 2), 2)
    assert torch.is_grad_enabled()
    assert not policy.kept.is_inference()  # such a tensor could not be trained on afterwards


# ---- evaluate: from settings to environments and back ----------------------------------------------------------------


@pytest.fixture
def made(monkeypatch):
    """Record the settings and environments that `evaluate` creates."""
    asked: list[tuple[Config, ScriptedEnvs, torch.device]] = []

    def make(config: Config, device: torch.device, env_factory: None, before_each: Any) -> ScriptedEnvs:
        asked.append((config, ScriptedEnvs(config.env.num_envs, lambda i, k: 3), device))
        return asked[-1][1]

    monkeypatch.setattr(module, "make_envs", make)
    return asked


@pytest.mark.parametrize(
    ("episodes", "num_envs", "expected"), [(1, None, 1), (5, None, 5), (100, None, 16), (100, 7, 7), (3, 8, 3)]
)
def test_number_of_environments(made, episodes, num_envs, expected):
    result = evaluate(Constant(), "CartPole-v1", episodes, num_envs=num_envs)
    (config, envs, device) = made[0]
    assert (config.env.num_envs, envs.closed, device) == (expected, 1, torch.device("cpu"))
    assert result.returns.shape == result.lengths.shape == result.terminated.shape == (episodes,)


@pytest.mark.parametrize("kind", ["env", "config"])
def test_settings_of_the_environment_are_kept_but_for_their_number(made, kind):
    env = EnvConfig(id="Pendulum-v1", kwargs={"g": 9.81}, num_envs=1000)
    before = override(Config(), {"env": env.model_dump(), "ppo.gamma": 0.9})
    evaluate(Constant(), env if kind == "env" else before, 4)
    assert made[0][0].env == env.model_copy(update={"num_envs": 4})
    assert env.num_envs == before.env.num_envs == 1000


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluate_is_run_episodes_in_environments_of_its_own(made, deterministic):
    a = evaluate(Constant(), "CartPole-v1", 6, seed=9, deterministic=deterministic, num_envs=4)
    b = run_episodes(Constant(), ScriptedEnvs(4, lambda i, k: 3), 6, seed=9, deterministic=deterministic)
    assert_equal(a, b)
    assert made[0][1].seed == 9


def test_environments_are_closed_after_an_error(made):
    class Broken(Constant):
        def act(self, *args, **kwargs):
            raise EnvError("on purpose")

    with pytest.raises(EnvError):
        evaluate(Broken(), "CartPole-v1")
    assert made[0][1].closed == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episodes": 0}, "episodes: at least 1, got 0"),
        ({"episodes": -3}, "episodes: at least 1, got -3"),
        ({"num_envs": 0}, "num_envs: at least 1, got 0"),
        ({"seed": -1}, r"seed: a whole number, 0 <= seed < 2\*\*31, got -1"),
        ({"seed": 2**31}, "seed"),
        ({"env": 3}, "env: a int; expected a gymnasium.Env"),
        ({"env": ""}, r"env\.id"),
    ],
)
def test_wrong_arguments_are_one_line_and_make_nothing(made, arguments, message):
    with pytest.raises(ConfigError, match=message) as error:
        evaluate(Constant(), **{"env": "CartPole-v1", **arguments})
    assert "\n" not in str(error.value)
    assert not made


def test_a_return_that_is_not_finite_names_its_environment():
    class Wrong(Constant):
        def act(self, obs, memory, starts, *, deterministic, generator):
            return torch.tensor([1.0, 1.0, float("nan")]), memory

    with pytest.raises(NonFiniteError, match="environment 2 gave an episode whose return is nan"):
        run_episodes(Wrong(), ScriptedEnvs(3, lambda i, k: 2), 7)


# ---- the real thing --------------------------------------------------------------------------------------------------


class Leaning:
    """A policy that pushes the cart to the side to which the pole leans."""

    def initial_memory(self, num_envs: int) -> None:
        return None

    def act(self, obs, memory, starts, *, deterministic: bool, generator: Generator | None):
        return (obs[:, 2] > 0).long(), memory


def test_cartpole_as_a_plain_gymnasium_loop_plays_it():
    N, episodes = 3, 7
    envs = SingleEnvs([gymnasium.make("CartPole-v1") for _ in range(N)])
    result = run_episodes(Leaning(), envs, episodes, seed=11)
    envs.close()
    expected = []
    with gymnasium.make("CartPole-v1") as env:
        for i, k in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1)]:
            obs, _ = env.reset(seed=episode_seed(11, i, k))
            total, done = 0.0, False
            while not done:
                obs, reward, terminated, truncated, _ = env.step(int(obs[2] > 0))
                total, done = total + reward, terminated or truncated
            expected.append(total)
    assert result.returns.tolist() == expected
    assert result.lengths.tolist() == expected
    assert result.terminated.all()


def test_evaluate_by_id():
    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    a, b = (evaluate(Leaning(), "CartPole-v1", episodes=5, seed=2) for _ in range(2))
    assert_equal(a, b)
    assert (a.returns > 20).all()
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    cut_off = evaluate(Leaning(), EnvConfig(id="CartPole-v1", kwargs={"max_episode_steps": 9}), episodes=5)
    assert cut_off.lengths.tolist() == [9] * 5
    assert not cut_off.terminated.any()


class Ten:
    """A policy with the constant action 0."""

    def initial_memory(self, num_envs):
        return None

    def act(self, obs, memory, starts, *, deterministic, generator):
        return torch.zeros(len(obs), dtype=torch.int64), None


@pytest.mark.parametrize("given", [None, "runs/x", lambda obs: 0, torch.nn.Linear(1, 1), Ten, object()])
def test_what_is_no_policy_is_named(given):
    with pytest.raises(ConfigError, match=r"^policy: expected a Policy, such as trainer.policy\(\) or .*, got "):
        evaluate(given, "CartPole-v1")


@pytest.mark.parametrize("key", ["episodes", "max_steps", "num_envs", "seed", "stop"])
@pytest.mark.parametrize("value", ["3", 2.5, True, [2]])
def test_what_is_no_whole_number_is_named(key, value):
    with pytest.raises(ConfigError) as caught:
        evaluate(Ten(), "CartPole-v1", **{"episodes": 1, "max_steps": 3, key: value})
    assert str(caught.value).startswith(f"{key}: ")
    assert str(caught.value).endswith(f", got {value!r}")


def test_numpy_has_whole_numbers_too():
    two = np.int64(2)
    assert len(evaluate(Ten(), "CartPole-v1", episodes=two, seed=two, max_steps=two, num_envs=two).returns) == 2


def test_a_policy_of_another_environment_is_refused_with_both_shapes():
    policy = Trainer(override(Config(), {"run.root": None, "env.id": "CartPole-v1", "env.num_envs": 1})).policy()
    text = r"^policy: it was trained .*: one observation has shape \(4,\), got \(1, 6\)$"
    with pytest.raises(ConfigError, match=text):
        evaluate(policy, "Acrobot-v1", episodes=1)
