"""A final observation that an AsyncVectorEnv has written over is noticed, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from ppo_lab.envs.adapters.single import SingleEnvs
from ppo_lab.envs.adapters.vector import VectorEnvs
from ppo_lab.envs.adapters.vector_checks import written_over
from ppo_lab.errors import EnvError, NonFiniteError

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


class Walk(gymnasium.Env):
    """Counts its steps, four an episode. kind: how the arrays come about that it shows."""

    observation_space, action_space = spaces.Box(-9, 9, (2,), np.float32), spaces.Discrete(2)
    metadata: ClassVar = {"render_modes": []}

    def __init__(self, kind):
        self.kind, self.buffer = kind, np.zeros(2, np.float32)

    def show(self):
        if self.kind in ("constant", "there and back"):
            return np.full(2, 0 if self.kind == "constant" else self.t % 4, np.float32)
        if self.kind == "blank":  # one array for ever, never written
            return self.buffer
        if self.kind == "copies" or (self.kind == "reset copies" and self.t == 0):
            return np.full(2, self.t, np.float32)
        self.buffer[:] = self.t
        return self.buffer

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.show(), {}

    def step(self, action):
        self.t += 1
        return self.show(), 1.0, self.t == 4, False, {}


class Nested(Walk):
    observation_space = spaces.Dict(a=Walk.observation_space, b=spaces.Discrete(9))

    def show(self):
        return {"a": super().show(), "b": self.t}


class WithMasks(Walk):
    """Raises at an action that its mask forbids."""

    observation_space = spaces.Dict(a=Walk.observation_space, action_mask=spaces.MultiBinary(2))

    def show(self):
        return {"a": super().show(), "action_mask": np.array([0, 1], np.int8)}

    def step(self, action):
        if action == 0:
            raise ValueError("illegal")
        return super().step(action)


def last_of_two_episodes(env_fn, shared_memory):
    raw = AsyncVectorEnv([env_fn] * 2, shared_memory=shared_memory, autoreset_mode=AutoresetMode.SAME_STEP)
    envs = VectorEnvs(raw)
    try:
        envs.reset(1)
        steps = [envs.step(torch.ones(2, dtype=torch.int64)) for _ in range(8)]
        assert [bool(step.terminated[0]) for step in steps] == [False, False, False, True] * 2
        return [step.final_obs for step in (steps[3], steps[7])]
    finally:
        envs.close()


@pytest.mark.parametrize("shared_memory", [True, False])
@pytest.mark.parametrize("make", [partial(Walk, "reused"), partial(Nested, "reused"), partial(WithMasks, "reused")])
def test_a_reused_buffer_is_refused_at_the_first_ending(make, shared_memory):
    with pytest.raises(EnvError, match=r"AsyncVectorEnv: environment 0 reuses its observation buffer.*use DISABLED"):
        last_of_two_episodes(make, shared_memory)


@pytest.mark.parametrize(
    ("kind", "last"), [("copies", 4), ("reset copies", 4), ("constant", 0), ("there and back", 0), ("blank", 0)]
)
def test_others_are_not(kind, last):
    for obs in last_of_two_episodes(partial(Walk, kind), True):
        assert obs.tolist() == [[last] * 2] * 2


def test_gymnasium_still_sends_the_next_episode_as_the_last_observation():
    raw = AsyncVectorEnv([partial(Walk, "reused")], autoreset_mode=AutoresetMode.SAME_STEP)
    raw.reset(seed=1)
    for _ in range(4):
        *_, infos = raw.step(np.ones(1, np.int64))
    raw.close()
    assert infos["final_obs"][0].tolist() == [0, 0], "Gymnasium copies now: the refusal can go"


@pytest.mark.parametrize("kind", ["reused", "copies", "reset copies", "constant", "there and back", "blank"])
def test_what_is_tried_is_whether_a_reset_changes_what_was_shown(kind):
    assert written_over(partial(Walk, kind)) == ({""} if kind == "reused" else set())
    assert written_over(partial(Nested, kind)) == ({"a"} if kind == "reused" else set())


class Choices(gymnasium.Env):
    """Shows `shown[t]`, an episode of three steps. Each reset begins at the next of `shown`'s first numbers."""

    action_space = spaces.Discrete(2)

    def __init__(self, space, resets, steps):
        self.observation_space, self.resets, self.steps = space, iter(resets), steps

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return next(self.resets), {}

    def step(self, action):
        self.t += 1
        return self.steps[self.t - 1], 1.0, self.t == 3, False, {}


FIVE, PAIR = spaces.Discrete(5), spaces.MultiDiscrete([3, 3], start=[0, 1])
PLACES = {  # where the bad one is: resets, steps, and where the error says that it is
    "first reset": ([9, 0], [1, 1, 1], "reset"),
    "step": ([0, 0, 0, 0], [1, 9, 1], "at its step 2"),
    "last": ([0, 0, 0, 0], [1, 1, 9], "at its step 3"),
    "second reset": ([0, 9], [1, 1, 1], ""),
    "none": ([0] * 9, [1, 1, 1], None),
}


@pytest.mark.parametrize("mode", [*AutoresetMode, "single"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["Discrete", "MultiDiscrete", "Dict"])
def test_choices_outside_their_space_are_refused(kind, place, mode):
    resets, steps, where = PLACES[place]
    shown = {0: 2, 1: 4, 9: -1}
    space, show, text = FIVE, shown.get, "observation -1, its space allows 0 .. 4"
    if kind == "MultiDiscrete":
        shown = {0: [0, 1], 1: [2, 3], 9: [0, 4]}
        space, text = PAIR, r"observation \[0 4\], its space allows \[0, 1\] .. \[2, 3\]"
        show = lambda n: np.array(shown[n])  # noqa: E731
    if kind == "Dict":
        space, text = spaces.Dict(a=FIVE, b=spaces.Box(-1, 1, (2,))), "observation -1 of 'a', its space allows 0 .. 4"
        show = lambda n: {"a": np.int64(shown[n]), "b": np.zeros(2, np.float32)}  # noqa: E731
    makes = [
        lambda: Choices(space, [show(0)] * 9, [show(1)] * 3),
        lambda: Choices(space, [show(n) for n in resets], [show(n) for n in steps]),
    ]
    single = mode == "single"
    envs = SingleEnvs([make() for make in makes]) if single else VectorEnvs(SyncVectorEnv(makes, autoreset_mode=mode))
    with (
        contextlib.nullcontext() if where is None else pytest.raises(EnvError, match=f"environment 1.*{text}.*{where}")
    ):
        envs.reset(1)
        for _ in range(8):
            envs.step(torch.zeros(2, dtype=torch.int64))


def test_what_is_no_number_after_a_reset_in_the_same_step_is_refused():
    box = spaces.Box(-1, 1, (1,))
    zero, nan = np.zeros(1, np.float32), np.full(1, np.nan, np.float32)
    inner = SyncVectorEnv([lambda: Choices(box, [zero, nan], [zero] * 3)], autoreset_mode=AutoresetMode.SAME_STEP)
    envs = VectorEnvs(inner)
    envs.reset(1)
    zeros = torch.zeros(1, dtype=torch.int64)
    envs.step(zeros), envs.step(zeros)
    with pytest.raises(NonFiniteError, match=r"environment 0 returned an observation with nan .* from its reset"):
        envs.step(zeros)


class Breaks(Choices):
    def step(self, action):
        if self.t == 1:
            raise ValueError("broken")
        return super().step(action)


@pytest.mark.filterwarnings("ignore:.*ERROR")  # Gymnasium's own words about it
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_after_a_worker_died_one_line_says_so(mode):
    makes = [partial(Choices, FIVE, [0] * 9, [1] * 3), partial(Breaks, FIVE, [0] * 9, [1] * 3)]
    envs = VectorEnvs(AsyncVectorEnv(makes, autoreset_mode=mode))
    zeros = torch.zeros(2, dtype=torch.int64)
    envs.reset(1)
    envs.step(zeros)
    with pytest.raises(EnvError, match="ValueError: broken"):
        envs.step(zeros)
    for _ in range(2):
        with pytest.raises(
            EnvError, match=r"worker of environment 1 died .*: make a new vector .*Trainer.resume"
        ) as got:
            envs.reset(2)
        assert "\n" not in str(got.value)
    envs.close()


def test_a_vector_environment_in_this_process_can_be_reset_after_an_error():
    envs = VectorEnvs(SyncVectorEnv([partial(Breaks, FIVE, [0] * 9, [1] * 3)]))
    zeros = torch.zeros(1, dtype=torch.int64)
    envs.reset(1)
    envs.step(zeros)
    with pytest.raises(EnvError, match="ValueError: broken"):
        envs.step(zeros)
    envs.reset(2)
    envs.step(zeros)
