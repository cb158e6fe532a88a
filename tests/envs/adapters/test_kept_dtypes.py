"""An observation of another dtype than declared is kept without loss, or refused: in `reset`, in `step`, in a Dict."""

from __future__ import annotations

from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ppo_lab.envs.adapters.rows import cast_problem, harmless_kinds, obs_dtype
from ppo_lab.envs.adapters.single import SingleEnvs
from ppo_lab.envs.adapters.vector import VectorEnvs
from ppo_lab.errors import EnvError

INTEGERS = [np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)]
FLOATS = [np.dtype(f"f{size}") for size in (4, 8)]
KEPT = [np.dtype(np.bool_), *INTEGERS, *FLOATS]


@given(st.data(), st.sampled_from(KEPT), st.sampled_from([*INTEGERS, *FLOATS, np.dtype(np.bool_)]))
def test_what_is_kept_is_what_was_given(data, kept, dtype):
    """By hand, number by number: whole numbers and flags stay what they are; a float may lose digits."""
    array = data.draw(arrays.arrays(dtype, arrays.array_shapes(max_dims=2, max_side=3)))
    problem = cast_problem(array, kept)
    if problem is None and kept.kind != "f":
        assert [int(one) for one in array.astype(kept).flat] == [int(one) for one in array.flat]
        assert all(float(one) == int(one) for one in array.flat)
    if problem is not None and np.can_cast(dtype, kept, "safe"):
        pytest.fail(f"{dtype} as {kept}: {problem}")


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_what_comes_back_as_it_was_may_still_be_another_number(size):
    largest = np.array([np.iinfo(f"u{size}").max], f"u{size}")
    assert largest.astype(f"i{size}").astype(f"u{size}") == largest  # as -1 on the way
    assert cast_problem(largest, np.dtype(f"i{size}")) == f"of dtype uint{8 * size} that holds {largest[0]}"
    assert cast_problem(largest // 2, np.dtype(f"i{size}")) is None


@given(st.data(), st.sampled_from(KEPT))
def test_harmless_is_what_no_number_can_spoil(data, kept):
    space = spaces.Box(0, 1, (2,), kept.type)
    for dtype in harmless_kinds(space, obs_dtype(space)):
        if dtype.kind in "biuf":
            array = data.draw(arrays.arrays(dtype, (2,)))
            assert cast_problem(array, obs_dtype(space)) is None


class Late(gymnasium.Env):
    """As declared in `reset`, something else from the first step on."""

    action_space = spaces.Discrete(2)
    metadata: ClassVar = {"render_modes": []}

    def __init__(self, space, later, nested):
        self.space, self.later, self.nested = space, later, nested
        self.observation_space = spaces.Dict({"a": space}) if nested else space

    def reset(self, *, seed=None, options=None):
        return self.show(np.zeros(self.space.shape, self.space.dtype)[()]), {}

    def step(self, action):
        return self.show(self.later), 0.0, False, False, {}

    def show(self, obs):
        return {"a": obs} if self.nested else obs


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("space", "later"),
    [
        (spaces.Box(0, 255, (4,), np.uint8), np.full(4, 0.7, np.float32)),
        (spaces.Box(0, 255, (4,), np.uint8), [0.7] * 4),
        (spaces.Box(-5, 5, (4,), np.int8), np.full(4, 300)),
        (spaces.Box(-5, 5, (), np.int8), np.int64(300)),
        (spaces.Discrete(4), 0.7),
        (spaces.Discrete(4), np.float64(0.7)),
        (spaces.MultiDiscrete([3, 3]), np.array([0.5, 1.5])),
        (spaces.MultiBinary(3), np.array([0.5, 0.0, 1.0])),
        (spaces.Box(0, 1, (2,), np.bool_), np.array([0, 2])),
        (spaces.Box(0, 1, (2,), np.float32), np.array([1j, 0])),
        (spaces.Box(0, 1, (2,), np.float32), np.array(["0", "1"])),
    ],
)
def test_another_dtype_in_step_only_is_refused(space, later, nested):
    envs = SingleEnvs([Late(space, later, nested) for _ in range(2)])
    envs.reset(1)
    with pytest.raises(
        EnvError, match=r"environment 0 returned no .* step: .*dtype.*, its space declares .* at its step 1 "
    ):
        envs.step(torch.zeros(2))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("space", "later"), [(spaces.Box(-5, 5, (4,), np.int8), np.full(4, 300))])
def test_a_vector_environment_may_not_wrap_around_either(space, later, nested):
    vector = SyncVectorEnv([lambda: Late(space, later, nested)] * 2)
    step = vector.step

    def wide(action):  # Gymnasium's own buffer has the declared dtype; others hand out what they like
        _, *rest = step(action)
        rows = np.stack([later, later])
        return ({"a": rows} if nested else rows), *rest

    vector.step = wide
    envs = VectorEnvs(vector)
    envs.reset(1)
    with pytest.raises(EnvError, match=r"expected observation of dtype int8, got one of dtype int64 that holds 300"):
        envs.step(torch.zeros(2))
    envs.close()
