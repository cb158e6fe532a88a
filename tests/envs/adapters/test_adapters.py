"""Whatever way an environment is stepped, the experience that comes out is the same, and errors name the culprit."""

from __future__ import annotations

import random
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from hypothesis import example, given
from hypothesis import strategies as st

from ppo_lab.envs.adapters.loop import episode_seed
from ppo_lab.envs.adapters.single import SingleEnvs
from ppo_lab.envs.adapters.vector import VectorEnvs
from ppo_lab.errors import EnvError, NonFiniteError
from tests.scripted_envs import ScriptedEnv, SeededEnv

MODES = list(AutoresetMode)
BOX_ACTION = spaces.Box(-1.0, 1.0, (1,), np.float32)
TRICKY = ("T", "C", "B", "..T", "T", "C", ".C", "....B")  # length 1, back to back, both flags at once

episodes = st.tuples(st.integers(0, 4), st.sampled_from("TCB")).map(lambda part: "." * part[0] + part[1])
scripts = st.lists(st.lists(episodes, min_size=1, max_size=5).map(tuple), min_size=1, max_size=4)


def action_of(who: int, k: int) -> float:
    """What environment `who` is given at its k-th real transition."""
    return ((7 * who + 3 * k) % 16 - 8) / 8


def by_hand(who: int, script: tuple[str, ...], count: int) -> list[tuple]:
    """The first `count` transitions as the script has them: obs, action, reward, terminated, truncated, final, next."""
    rows, episode, step, obs = [], 0, 0, (who, 0, 0, 0.0)
    for k in range(count):
        action = action_of(who, k)
        ending = script[episode % len(script)][step]
        step += 1
        final = (who, episode, step, action)
        reward = who + episode / 8 + step / 64
        if ending != ".":
            episode, step = episode + 1, 0
        following = final if step else (who, episode, 0, 0.0)
        rows.append((obs, action, reward, ending in "TB", ending in "CB", final, following))
        obs = following
    return rows


def transitions(envs, count: int) -> list[list[tuple]]:
    """The first `count` real transitions of every environment. In a next-step reset row the action is nonsense."""
    N = envs.num_envs
    rows: list[list[tuple]] = [[] for _ in range(N)]
    obs = envs.reset(1).clone()
    waiting = [False] * N
    while min(len(row) for row in rows) < count:
        action = torch.tensor([[0.99 if waiting[n] else action_of(n, len(rows[n]))] for n in range(N)])
        step = envs.step(action)
        for n in range(N):
            done = bool(step.terminated[n] or step.truncated[n])
            if waiting[n]:
                assert (bool(step.valid[n]), float(step.reward[n]), done) == (False, 0.0, False)
                rows[n][-1] = (*rows[n][-1], tuple(step.obs[n].tolist()))
            else:
                assert step.valid[n]
                following = () if done and envs.next_step_autoreset else (tuple(step.obs[n].tolist()),)
                rows[n].append((
                    tuple(obs[n].tolist()), float(action[n]), float(step.reward[n]),
                    bool(step.terminated[n]), bool(step.truncated[n]), tuple(step.final_obs[n].tolist()), *following,
                ))  # fmt: skip
            if envs.next_step_autoreset or not done:
                assert torch.equal(step.obs[n], step.final_obs[n])
            waiting[n] = done and envs.next_step_autoreset
        obs = step.obs.clone()
    envs.close()
    return [row[:count] for row in rows]


def check(rows: list[list[tuple]], script: list[tuple[str, ...]], count: int) -> None:
    for who, mine in enumerate(rows):
        for got, wanted in zip(mine, by_hand(who, script[who], count), strict=True):
            assert got == wanted[: len(got)]  # a next-step ending in the last row has not shown its reset yet
            assert len(got) >= 6


@given(scripts, st.booleans(), st.booleans())
@example([TRICKY, TRICKY[3:], ("T",)], True, True)
def test_single_envs_follow_the_script(script, reuse, spoil):
    check(transitions(SingleEnvs([ScriptedEnv(i, s, reuse, spoil) for i, s in enumerate(script)]), 12), script, 12)


@pytest.mark.parametrize("mode", MODES)
@given(scripts, st.booleans(), st.booleans())
@example([TRICKY, TRICKY[3:], ("T",)], True, False)
def test_vector_envs_follow_the_script_in_every_autoreset_mode(mode, script, reuse, copy):
    reuse = reuse and mode is not AutoresetMode.SAME_STEP  # there it is refused, see below
    makers = [lambda i=i, s=s: ScriptedEnv(i, s, reuse) for i, s in enumerate(script)]
    vector = SyncVectorEnv(makers, copy=copy, autoreset_mode=mode)  # without copy it hands out its own buffer
    check(transitions(VectorEnvs(vector), 12), script, 12)


def test_same_step_refuses_an_env_that_reuses_its_buffer():
    raw = SyncVectorEnv([lambda: ScriptedEnv(0, ("..T",), reuse=True)], autoreset_mode=AutoresetMode.SAME_STEP)
    envs = VectorEnvs(raw)
    envs.reset(1)
    envs.step(torch.zeros(1, 1))
    envs.step(torch.zeros(1, 1))
    with pytest.raises(EnvError, match=r"environment 0 reuses its observation buffer"):
        envs.step(torch.zeros(1, 1))
    raw.reset(seed=1)
    for _ in range(3):
        *_, infos = raw.step(np.zeros((1, 1), np.float32))
    reset_obs = [0, 3, 0, 0]  # episode 3, step 0, where episode 2, step 3 ended
    assert infos["final_obs"][0].tolist() == reset_obs, "Gymnasium copies now: the refusal can go"
    envs.close()


def test_an_env_may_keep_and_change_the_action_it_is_given():
    envs = SingleEnvs([ScriptedEnv(0, ("....T",), spoil=True)])
    envs.reset(1)
    action = torch.full((1, 1), 0.5)
    assert envs.step(action).obs[0, 3] == 0.5
    assert action.item() == 0.5


# ---- seeds -----------------------------------------------------------------------------------------------------------


def test_every_episode_has_its_own_seed():
    inner = [ScriptedEnv(i, ("T", ".C")) for i in range(3)]
    envs = SingleEnvs(inner)
    for run_seed in (5, 6):
        envs.reset(run_seed)
        for _ in range(6):
            envs.step(torch.zeros(3, 1))
    for i, env in enumerate(inner):
        expected = [episode_seed(run_seed, i, k) for run_seed in (5, 6) for k in range(5)]
        assert env.seeds == expected
    assert len({seed for env in inner for seed in env.seeds}) == 30
    assert all(0 <= seed < 2**31 and type(seed) is int for env in inner for seed in env.seeds)


@given(st.integers(0, 2**31 - 1), st.integers(0, 10**6), st.integers(0, 10**6))
def test_episode_seed_depends_on_each_number(run_seed, env, episode):
    seed = episode_seed(run_seed, env, episode)
    others = {episode_seed(run_seed + 1, env, episode), episode_seed(run_seed, env + 1, episode)}
    assert seed == episode_seed(run_seed, env, episode)
    assert seed not in others | {episode_seed(run_seed, env, episode + 1)}
    assert env == episode or seed != episode_seed(run_seed, episode, env)


def test_stepping_touches_no_global_random_state():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    envs = SingleEnvs([SeededEnv() for _ in range(2)])
    envs.reset(1)
    for _ in range(10):
        envs.step(torch.tensor([5, 6]))
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


# ---- what comes in and goes out --------------------------------------------------------------------------------------


class ConstantEnv(gymnasium.Env):
    """Shows the same thing again and again."""

    metadata: ClassVar = {"render_modes": []}
    action_space = BOX_ACTION

    def __init__(self, space, shown, reset_shown=None) -> None:
        self.observation_space = space
        self.shown, self.reset_shown = shown, shown if reset_shown is None else reset_shown

    def reset(self, *, seed=None, options=None):
        return self.reset_shown, {}

    def step(self, action):
        return self.shown, 1, False, False, {}


@pytest.mark.parametrize(
    ("space", "shown", "dtype"),
    [
        (spaces.Box(0, 255, (2, 2, 3), np.uint8), np.full((2, 2, 3), 200, np.uint8), torch.uint8),
        (spaces.Box(-1, 1, (2,), np.float64), np.array([0.5, 0.25]), torch.float32),
        (spaces.Box(-1, 1, (2,), np.float32), [0.5, 0.25], torch.float32),
        (spaces.Box(-1, 1, (), np.float32), np.float32(0.5), torch.float32),
        (spaces.Box(-9, 9, (2,), np.int32), np.array([-3, 4], np.int64), torch.int32),
        (spaces.Discrete(4, start=-2), -2, torch.int64),
        (spaces.Discrete(4, start=2), np.int64(5), torch.int64),
        (spaces.Discrete(2), True, torch.int64),
        (spaces.Box(-1, 1, (2,), np.float32), np.array([1, -1]), torch.float32),
        (spaces.Box(-9, 9, (2,), np.int8), np.array([-3, 4], ">i8"), torch.int8),
    ],
)
def test_observations_keep_dtype_shape_and_value(space, shown, dtype):
    single = SingleEnvs([ConstantEnv(space, shown) for _ in range(2)])
    # Gymnasium makes no vector of a shapeless Box
    vector = [VectorEnvs(SyncVectorEnv([lambda: ConstantEnv(space, shown)] * 2))] if space.shape else []
    for envs in (single, *vector):
        step_obs = [envs.reset(1).clone(), envs.step(torch.zeros(2, 1)).obs]
        for obs in step_obs:
            assert (obs.dtype, obs.shape) == (dtype, (2, *space.shape))
            assert np.array_equal(obs[1].numpy(), np.asarray(shown))
        assert envs.step(torch.zeros(2, 1)).reward.dtype == torch.float32
        envs.close()


@pytest.mark.parametrize(
    ("space", "shown", "text"),
    [
        (
            spaces.Box(-1, 1, (4,), np.float32),
            np.float32(0.5),
            r"shape \(\), its space declares \(4,\)",
        ),  # no broadcasting
        (spaces.Box(-1, 1, (4,), np.float32), np.zeros(1, np.float32), r"shape \(1,\), its space declares \(4,\)"),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([0.5, 0.9]), "dtype float64, its space declares uint8"),
        (spaces.Box(-9, 9, (2,), np.int8), np.array([1, 300]), "dtype int64 that holds 300, its space declares int8"),
        (
            spaces.Box(-9, 9, (2,), np.int8),
            np.array([200, 0], np.uint8),
            "uint8 that holds 200, its space declares int8",
        ),
        (spaces.Box(0, 9, (2,), np.uint8), np.array([1, 2]), "dtype int64, its space declares uint8"),
        (spaces.MultiBinary(2), np.array([0.0, -np.inf]), "float64 that holds -inf, its space declares bool"),
        (spaces.Discrete(4), 4, r"observation 4, its space allows 0 .. 3"),
        (spaces.Discrete(4, start=2), 1, r"observation 1, its space allows 2 .. 5"),
        (spaces.Discrete(4), None, "NoneType"),
        (spaces.Discrete(4), 0.7, "dtype float64, its space declares int64"),
        (spaces.Discrete(4), np.float32(1), "dtype float32, its space declares int64"),
        (spaces.Discrete(4), np.array([1]), r"shape \(1,\), its space declares \(\)"),
    ],
)
def test_observations_that_are_not_as_declared_are_refused(space, shown, text):
    good = np.zeros(space.shape, space.dtype) + getattr(space, "start", 0)
    envs = SingleEnvs([ConstantEnv(space, good), ConstantEnv(space, shown, reset_shown=good)])
    envs.reset(1)
    with pytest.raises(EnvError, match=r"environment 1 returned .*" + text + ".* at its step 1 "):
        envs.step(torch.zeros(2, 1))
    if space.shape:
        with pytest.raises(EnvError, match=r"environment 0 returned no .*" + text):
            SingleEnvs([ConstantEnv(space, shown)]).reset(1)


@pytest.mark.parametrize("vector", [False, True])
def test_actions_are_checked(vector):
    one = ScriptedEnv(0, ("T",))
    envs = VectorEnvs(SyncVectorEnv([lambda: one])) if vector else SingleEnvs([one])
    with pytest.raises(EnvError, match=r"call reset\(\) before the first step"):
        envs.step(torch.zeros(1, 1))
    envs.reset(1)
    with pytest.raises(EnvError, match=r"actions of shape \(1, 1\), got \(1,\)"):
        envs.step(torch.zeros(1))
    with pytest.raises(NonFiniteError, match=r"action for environment 0 is not finite: .*nan"):
        envs.step(torch.tensor([[torch.nan]]))
    assert envs.step(torch.zeros(1, 1)).terminated[0]  # neither of these cost an episode
    envs.close()
    with pytest.raises(EnvError, match=r"reset\(\)"):
        envs.step(torch.zeros(1, 1))


def test_close_reaches_every_env_also_when_one_fails():
    inner = [ScriptedEnv(i, ("T",)) for i in range(3)]
    inner[1].close = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        SingleEnvs(inner).close()
    assert (inner[0].closed, inner[2].closed) == (1, 1)


def test_envs_of_one_set_are_alike():
    other = ConstantEnv(spaces.Box(-1, 1, (4,), np.float32), 0)
    with pytest.raises(EnvError, match=r"environment 1 has other spaces"):
        SingleEnvs([ScriptedEnv(0, ("T",)), other])
    with pytest.raises(EnvError, match=r"at least one"):
        SingleEnvs([])


# ---- failures --------------------------------------------------------------------------------------------------------

FAILURES = {
    "raise": (EnvError, r"environment 2 raised ZeroDivisionError: a wheel came off at its step 3 \(action 6, .*"),
    "nan reward": (NonFiniteError, r"environment 2 returned reward nan at its step 3 \(action 6, .*"),
    "nan obs": (NonFiniteError, r"environment 2 returned an observation with nan in entry 1 of 3 at its step 3 .*"),
    "huge obs": (NonFiniteError, r"environment 2 returned .* at its step 3 \(action 6, .*"),
    "no reward": (EnvError, r"environment 2 returned no valid step: TypeError: .*NoneType.* at its step 3 .*"),
    "shape": (
        EnvError,
        r"environment 2 returned no valid step: .* shape \(2,\), its space declares \(3,\) at its step 3 .*",
    ),
    "four": (EnvError, r"environment 2 .* expected \(obs, reward, .*\), got a tuple of 4 at its step 3 .*"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_failures_name_environment_step_action_and_seed(kind):
    seed = episode_seed(9, 2, 0)
    envs = SingleEnvs([SeededEnv(faults=((seed, 3, kind),)) for _ in range(4)])
    envs.reset(9)
    for _ in range(2):
        envs.step(torch.full((4,), 6))
    error, text = FAILURES[kind]
    with pytest.raises(
        error, match=f"^{text}episode seed {seed}\\)$" if text.endswith(", .*") else f"^{text}$"
    ) as caught:
        envs.step(torch.full((4,), 6))
    assert "\n" not in str(caught.value)
    assert str(seed) in str(caught.value)
    if kind == "raise":
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(EnvError, match=r"call reset\(\) before the first step"):
        envs.step(torch.full((4,), 6))
    assert torch.isfinite(envs.reset(1)).all()
    envs.step(torch.full((4,), 6))


def test_steps_are_counted_from_the_start_of_an_episode():
    class Spoilt(ScriptedEnv):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            return obs, np.inf if (self.episode, self.t) == (2, 4) else reward, *rest

    for envs in (
        SingleEnvs([Spoilt(0, ("..T", "C", "....C"))]),
        VectorEnvs(SyncVectorEnv([lambda: Spoilt(0, ("..T", "C", "....C"))], autoreset_mode="Disabled")),
    ):
        envs.reset(1)
        with pytest.raises(NonFiniteError, match=r"environment 0 returned reward inf at its step 4 \(action \[0.\]"):
            [envs.step(torch.zeros(1, 1)) for _ in range(100)]
        envs.close()


def test_an_overflow_is_reported_where_warnings_are_not_errors():
    envs = SingleEnvs([SeededEnv(faults=((episode_seed(9, 0, 0), 1, "huge obs"),))])
    envs.reset(9)
    with pytest.warns(RuntimeWarning, match=r"overflow"), pytest.raises(NonFiniteError, match=r"inf in entry 1 of 3"):
        envs.step(torch.tensor([5]))


@pytest.mark.parametrize(("answer", "text"), [(np.zeros(4), "too many values"), (1 / 3, "float"), (None, "NoneType")])
def test_a_reset_that_is_none(answer, text):
    env = ScriptedEnv(0, ("T",))
    env.reset = lambda seed=None: answer
    with pytest.raises(EnvError, match=f"environment 0 returned no .observation, info.: .*{text}.*episode seed"):
        SingleEnvs([env]).reset(1)


def test_a_reset_that_raises_or_is_not_finite():
    env = ScriptedEnv(0, ("T",))
    env.reset = lambda seed: (np.array([1, 2, np.inf, 4], np.float32), {})
    with pytest.raises(NonFiniteError, match=r"environment 0 returned an observation with inf in entry 2 of 4 .reset"):
        SingleEnvs([env]).reset(1)
    env.reset = lambda seed: [][0]
    with pytest.raises(EnvError, match=r"environment 0 raised IndexError: .*reset with episode seed") as caught:
        SingleEnvs([env]).reset(1)
    assert isinstance(caught.value.__cause__, IndexError)


# ---- vector environments ---------------------------------------------------------------------------------------------


class Answers(VectorEnv):
    """A vector environment that answers what it was told to."""

    def __init__(self, steps: list[tuple], mode: object, num_envs: int = 2) -> None:
        self.metadata = {} if mode is None else {"autoreset_mode": mode}
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.single_action_space = BOX_ACTION
        self.steps = iter(steps)

    def reset(self, *, seed=None, options=None):
        return np.zeros((self.num_envs, 1), np.float32), {}

    def step(self, actions):
        answer = next(self.steps)
        if isinstance(answer, Exception):
            raise answer
        return answer


def answer(obs=(1, 2), reward=(0, 0), terminated=(False, False), truncated=(False, False), **infos):
    column = np.array(obs, np.float32)[:, None]
    return column, np.asarray(reward), np.array(terminated), np.array(truncated), infos


@pytest.mark.parametrize("mode", [None, "sometimes", 3])
def test_a_vector_env_must_declare_how_it_resets(mode):
    with pytest.raises(EnvError, match=r'Answers: its metadata\["autoreset_mode"\] must be one of .*NEXT_STEP.*got'):
        VectorEnvs(Answers([], mode))


def test_the_mode_may_be_declared_by_name():
    assert VectorEnvs(Answers([], "NextStep")).next_step_autoreset
    assert not VectorEnvs(Answers([], "SameStep")).next_step_autoreset


@pytest.mark.parametrize("reward", [np.array([1, 2]), np.array([True, False]), np.array([0.5, 1.5], np.float64)])
def test_rewards_of_any_dtype_become_float32(reward):
    envs = VectorEnvs(Answers([answer(reward=reward)], AutoresetMode.NEXT_STEP))
    envs.reset(1)
    step = envs.step(torch.zeros(2, 1))
    assert step.reward.dtype == torch.float32
    assert step.reward.tolist() == reward.tolist()


def test_same_step_takes_final_obs_of_all_without_a_mask():  # as the Arcade Learning Environment gives them
    final = np.array([[7], [8]], np.float32)
    envs = VectorEnvs(Answers([answer(terminated=(False, True), final_obs=final)], AutoresetMode.SAME_STEP))
    envs.reset(1)
    step = envs.step(torch.zeros(2, 1))
    assert step.final_obs.tolist() == [[1], [8]]
    assert step.obs.tolist() == [[1], [2]]


@pytest.mark.parametrize(
    "infos",
    [
        {},
        {"final_obs": np.array([None, None], object)},
        {"final_obs": np.zeros((2, 1), np.float32), "_final_obs": np.array([True, False])},
        {"final_observation": np.zeros((2, 1), np.float32)},
    ],
)
def test_same_step_without_the_final_obs_is_refused(infos):
    envs = VectorEnvs(Answers([answer(terminated=(False, True), **infos)], AutoresetMode.SAME_STEP))
    envs.reset(1)
    with pytest.raises(EnvError, match=r'environment 1 ended, but infos\["final_obs"\] has no entry for it'):
        envs.step(torch.zeros(2, 1))


def test_a_next_step_env_that_ends_in_the_row_of_its_reset_is_refused():
    steps = [answer(truncated=(True, False)), answer(truncated=(True, False))]
    envs = VectorEnvs(Answers(steps, AutoresetMode.NEXT_STEP))
    envs.reset(1)
    envs.step(torch.zeros(2, 1))
    with pytest.raises(EnvError, match=r"declares NEXT_STEP, but environment 0 ended in the row of its reset"):
        envs.step(torch.zeros(2, 1))


def test_reset_forgets_what_had_ended():
    envs = VectorEnvs(Answers([answer(truncated=(True, False)), answer()], AutoresetMode.NEXT_STEP))
    envs.reset(1)
    envs.step(torch.zeros(2, 1))
    envs.reset(1)
    assert envs.step(torch.zeros(2, 1)).valid.all()


def test_the_reset_row_has_reward_zero_whatever_the_env_says():
    given_rewards = np.full(2, 5, np.float32)
    steps = [answer(truncated=(True, False)), answer(reward=given_rewards), answer(reward=(6, 6))]
    envs = VectorEnvs(Answers(steps, AutoresetMode.NEXT_STEP))
    envs.reset(1)
    rows = [envs.step(torch.zeros(2, 1)) for _ in range(3)]
    assert [row.valid.tolist() for row in rows] == [[True, True], [False, True], [True, True]]
    assert [row.reward.tolist() for row in rows] == [[0, 0], [0, 5], [6, 6]]
    assert given_rewards.tolist() == [5, 5]  # theirs, not ours to change


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        (
            answer(reward=(0, np.nan)),
            NonFiniteError,
            r"environment 1 returned reward nan at its step 2 \(action \[0.5\]\)",
        ),
        (
            answer(obs=(np.inf, 0)),
            NonFiniteError,
            "environment 0 returned an observation with inf in entry 0 of 1 at its",
        ),
        (answer(obs=(1, 2, 3)), EnvError, r"Answers: expected observation of shape \(2, 1\), got \(3, 1\)"),
        (answer(reward=[[0], [0]]), EnvError, r"Answers: expected reward of shape \(2,\), got \(2, 1\)"),
        (answer(reward=("a", "b")), EnvError, "Answers: expected reward of dtype float32, got one of dtype <U1"),
        (answer()[:4], EnvError, "Answers: step of 2 environments failed: ValueError: not enough values"),
        (KeyError("wheel"), EnvError, "Answers: step of 2 environments failed: KeyError: 'wheel'"),
    ],
)
def test_vector_failures_are_one_line(bad, error, text):
    envs = VectorEnvs(Answers([answer(), bad, answer()], AutoresetMode.DISABLED))
    envs.reset(1)
    envs.step(torch.full((2, 1), 0.5))
    with pytest.raises(error, match=f"^{text}"):
        envs.step(torch.full((2, 1), 0.5))
    with pytest.raises(EnvError, match=r"call reset\(\) before the first step"):
        envs.step(torch.zeros(2, 1))
    envs.reset(1)
    assert envs.step(torch.zeros(2, 1)).valid.all()


def test_one_run_seed_one_vector_history():
    def history(seed: int) -> list:
        envs = VectorEnvs(gymnasium.make_vec("CartPole-v1", 3))
        rows = [envs.reset(seed).tolist()]
        rows += [envs.step(torch.tensor([0, 1, 0])).obs.tolist() for _ in range(30)]
        envs.close()
        envs.close()
        return rows

    assert history(3) == history(3) != history(4)
