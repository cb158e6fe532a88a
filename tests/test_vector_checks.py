"""A final observation that an AsyncVectorEnv has written over is noticed, and nothing else is taken for one."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from ppo_lab.adapters.vector import VectorEnvs
from ppo_lab.adapters.vector_checks import written_over
from ppo_lab.errors import EnvError

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
