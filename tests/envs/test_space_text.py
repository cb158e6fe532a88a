"""What differs between two spaces, in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from ppo_lab.envs.space_text import describe_space, unlike
from ppo_lab.envs.spaces import flatten_space


def box(shape=(2,), low=0.0, high=5.0, dtype=np.float32):
    return Box(low, high, shape, dtype)


def words(theirs, ours, name="observation"):
    saved = json.loads(json.dumps(describe_space(flatten_space(theirs))))
    return [(part.text, part.bounds_only) for part in unlike(saved, describe_space(flatten_space(ours)), name)]


SPACES = [
    box(), box((84, 84), 0, 255, np.uint8), Box(np.array([-np.inf, 0], np.float32), np.array([np.inf, 1], np.float32)),
    Discrete(4), Discrete(4, start=1), MultiDiscrete([3, 4]), MultiBinary(3), MultiBinary((2, 3)),
    Dict({"a": box(), "b": Discrete(2)}), Tuple((box(), Dict({"c": MultiBinary(2)}))),
]  # fmt: skip


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_is_like_itself_and_unlike_all_others(space):
    assert words(space, space) == []
    for other in SPACES:
        if other is not space:
            assert words(space, other), (space, other)


C = "in the checkpoint"
OBSERVATIONS = {
    "shape": (box((4,)), box((6,)), [f"observation: Box of shape (4,) {C}, (6,) here"]),
    "dtype": (box(), box(dtype=np.float64), [f"observation: Box of float32 {C}, float64 here"]),
    "kind": (box((4,)), Discrete(3), [f"observation: Box of shape (4,) {C}, Discrete with 3 values here"]),
    "Discrete": (Discrete(4), Discrete(6), [f"observation: Discrete with 4 values {C}, 6 here"]),
    "start": (Discrete(4), Discrete(4, start=1), [f"observation: Discrete whose first value is 0 {C}, 1 here"]),
    "MultiDiscrete": (
        MultiDiscrete([3, 4]), MultiDiscrete([3, 5]),
        [f"observation: MultiDiscrete with (3, 4) values {C}, (3, 5) here"],
    ),
    "MultiBinary": (MultiBinary(3), MultiBinary((2, 3)), [f"observation: MultiBinary of shape (3,) {C}, (2, 3) here"]),
    "missing": (Dict({"image": box(), "x": box()}), Dict({"x": box()}), ["observation: key 'image' is missing here"]),
    "new": (Dict({"x": box()}), Dict({"x": box(), "y": box()}), ["observation: key 'y' is not in the checkpoint"]),
    "order": (
        Dict({"a": box(), "b": box()}), Dict({"b": box(), "a": box()}, sort_keys=False),
        [f"observation: keys in the order a, b {C}, b, a here"],
    ),
    "in a key": (
        Dict({"a": box((4,)), "b": Discrete(2)}), Dict({"a": box((5,)), "b": Discrete(3)}),
        [
            f"observation: key 'a': Box of shape (4,) {C}, (5,) here",
            f"observation: key 'b': Discrete with 2 values {C}, 3 here",
        ],
    ),
    "nested": (
        Tuple((box(), Dict({"c": MultiBinary(2)}))), Tuple((box(), Dict({"c": MultiBinary(3)}))),
        [f"observation: key '1/c': MultiBinary of shape (2,) {C}, (3,) here"],
    ),
    "no keys": (Dict({"a": box()}), box((4,)), [f"observation: Dict with the keys a {C}, Box of shape (4,) here"]),
}  # fmt: skip


@pytest.mark.parametrize("case", OBSERVATIONS.values(), ids=list(OBSERVATIONS))
def test_what_differs_is_named(case):
    theirs, ours, texts = case
    assert words(theirs, ours) == [(text, False) for text in texts]


def test_actions_are_called_actions():
    assert words(Discrete(4), Discrete(6), "action") == [(f"action: Discrete with 4 actions {C}, 6 here", False)]


ENDS = Box(np.array([0, -1], np.float32), np.array([5, 1], np.float32))


@pytest.mark.parametrize(
    ("theirs", "ours", "text"),
    [
        (box(), box(high=9.0), f"Box with bounds 0 to 5 {C}, 0 to 9 here"),
        (box(high=np.inf), box(), f"Box with bounds 0 to inf {C}, 0 to 5 here"),
        (box(), ENDS, f"Box with bounds of entry 1: 0 to 5 {C}, -1 to 1 here"),
        (box((90, 90)), box((90, 90), high=9.0), f"Box with bounds 0 to 5 {C}, 0 to 9 here"),
    ],
)
def test_no_network_reads_the_bounds_of_observations_but_actions_mean_something_else(theirs, ours, text):
    assert words(theirs, ours) == [(f"observation: {text}", True)]
    assert words(theirs, ours, "action") == [(f"action: {text}", False)]
    assert words(Dict({"k": theirs}), Dict({"k": ours})) == [(f"observation: key 'k': {text}", True)]


def test_pictures_are_divided_by_their_highest_value():
    picture, darker, raised = (box((8, 8), low, high, np.uint8) for low, high in ((0, 255), (0, 15), (1, 255)))
    assert words(picture, darker) == [(f"observation: Box with bounds 0 to 255 {C}, 0 to 15 here", False)]
    assert words(picture, raised) == [(f"observation: Box with bounds 0 to 255 {C}, 1 to 255 here", True)]
    bytes_, others = box((8,), 0, 255, np.uint8), box((8,), 0, 15, np.uint8)  # in one dimension: no picture
    assert words(bytes_, others)[0][1]
