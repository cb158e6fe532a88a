"""Nested spaces and values become flat ones and come back the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from ppo_lab.envs.space_text import describe_space, make_space
from ppo_lab.envs.spaces import flatten_space, flatten_value, leaf_spaces, mask_size, nest, origin, unflatten_value
from ppo_lab.errors import EnvError
from tests.scripted_envs import NestedEnv

leaves = st.one_of(
    st.builds(lambda n, low: spaces.Discrete(n, start=low), st.integers(1, 5), st.integers(-3, 3)),
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(spaces.MultiDiscrete),
    st.integers(1, 4).map(spaces.MultiBinary),
    st.lists(st.integers(1, 3), max_size=3).map(lambda shape: spaces.Box(-1.0, 2.0, tuple(shape), np.float32)),
)
names = st.text("abz01", min_size=1, max_size=2)
nested = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(names, inner, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=6,
)


def same(one, other) -> bool:
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return np.array_equal(one, other)


@given(nested, st.integers(0, 100))
def test_flattening_and_its_inverse(space, seed):
    space.seed(seed)
    value = space.sample()
    flat_space, flat = flatten_space(space), flatten_value(space, value)
    assert flat_space.contains(flat)
    assert all(not isinstance(leaf, spaces.Dict | spaces.Tuple) for leaf in leaf_spaces(flat_space).values())
    back = unflatten_value(space, flat)
    assert space.contains(back)
    assert same(back, value)
    assert same(nest(origin(flat_space), flat), value)  # the flat space remembers where its leaves were
    assert flatten_space(flat_space) is flat_space or not isinstance(flat_space, spaces.Dict)  # flat stays flat


@given(nested)
def test_the_order_and_size_are_gymnasiums(space):
    """gymnasium.spaces.flatten_space walks the leaves in the same order: a second route."""
    if isinstance(flatten_space(space), spaces.Dict):
        ours = list(leaf_spaces(flatten_space(space)).values())
        assert sum(spaces.flatdim(leaf) for leaf in ours) == spaces.flatdim(space)
        space.seed(1)
        value = space.sample()
        parts = [spaces.flatten(leaf, flatten_value(space, value)[key])
                 for key, leaf in leaf_spaces(flatten_space(space)).items()]  # fmt: skip
        assert np.array_equal(np.concatenate(parts), spaces.flatten(space, value))


def test_keys():
    assert list(flatten_space(NestedEnv.observation_space).spaces) == [
        "action_mask", "pair/0", "pair/1", "picture", "self/doors", "self/gear", "self/speed"
    ]  # fmt: skip
    assert list(flatten_space(NestedEnv.action_space).spaces) == ["0", "1/many", "1/move", "1/on"]
    box = spaces.Box(0, 1, (2,))
    assert flatten_space(box) is box
    with pytest.raises(EnvError, match="'self/doors'"):
        flatten_value(NestedEnv.observation_space, {**NestedEnv.observation_space.sample(), "self": {}})


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (spaces.Discrete(4, start=3), 4),
        (spaces.MultiDiscrete([2, 3]), 5),
        (spaces.MultiBinary(3), 6),
        (spaces.MultiBinary((2, 3)), 12),
        (spaces.Box(0, 1, (3,)), 0),
        (NestedEnv.action_space, 3 + 5 + 4),
    ],
)
def test_mask_sizes(space, size):
    assert mask_size(space) == size == mask_size(flatten_space(space))


BIG = np.zeros((9, 9), np.float32)
BIG[3, 4] = -1


@given(nested)
def test_a_flat_space_survives_json(space):
    flat = flatten_space(space)
    back = make_space(json.loads(json.dumps(describe_space(flat), sort_keys=True)))
    assert back == flat
    assert list(leaf_spaces(back)) == list(leaf_spaces(flat))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (84, 84, 4), np.uint8),
        spaces.Box(-np.inf, np.inf, (100,), np.float64),
        spaces.Box(BIG, BIG + 1, dtype=np.float32),
        spaces.Box(-1.0, 1.0, (), np.float32),
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [-2, 3]]),
        spaces.MultiBinary((2, 3)),
    ],
)
def test_wide_spaces_survive_json_as_well(space):
    text = json.dumps(describe_space(space))
    back = make_space(json.loads(text))
    assert back == space
    assert back.dtype == space.dtype
    assert len(text) < 2000


def test_nested_spaces_have_no_text():
    with pytest.raises(EnvError, match="supported: Box, Discrete"):
        describe_space(spaces.Tuple((spaces.Discrete(2),)))
