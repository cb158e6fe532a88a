"""Keywords from YAML become what the signature of an environment or wrapper asks for."""

from __future__ import annotations

import functools
import typing
from collections.abc import Sequence
from typing import Any, Optional, Tuple  # noqa: UP035  # as people write them

import gymnasium
import numpy as np
import pytest

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.envs.adapters.declared import as_declared
from ppo_lab.envs.adapters.maker import wrap
from ppo_lab.envs.making import make_envs
from ppo_lab.errors import ConfigError

if typing.TYPE_CHECKING:
    from nowhere import Missing

Pair = tuple[int, int]


class Base:
    def __init__(self, below: Tuple[int, int] = (1, 1), **more: Any) -> None: ...  # noqa: UP006


class Declared(Base):
    def __init__(
        self,
        pair: Pair | None = None,
        old: Optional[Tuple[int, ...]] = None,  # noqa: UP006, UP045
        number_or_pair: int | tuple[int, int] = 3,
        nested: tuple[tuple[int, int], ...] = (),
        pairs: list[tuple[int, int]] | None = None,
        by_name: dict[str, tuple[float, ...]] | None = None,
        mixed: tuple[str, list[int]] | None = None,
        unknown: tuple[Missing, int] | None = None,
        default=(5, 6),
        array: float | np.ndarray = 0.0,
        numbers: list[int] | None = None,
        sequence: Sequence[int] = (),
        either: list | tuple = (),
        whatever: Any = None,
        bare=None,
        unknown_list: list[Missing] | tuple[Missing, ...] | None = None,
        **more: Any,
    ) -> None: ...


TUPLES = {
    "pair": ([1, 2], (1, 2)),
    "old": ([1, 2, 3], (1, 2, 3)),
    "number_or_pair": ([1, 2], (1, 2)),
    "nested": ([[1, 2], [3, 4]], ((1, 2), (3, 4))),
    "pairs": ([[1, 2]], [(1, 2)]),
    "by_name": ({"a": [0.5]}, {"a": (0.5,)}),
    "mixed": (["a", [1]], ("a", [1])),
    "unknown": ([1, 2], (1, 2)),
    "default": ([7], (7,)),
    "below": ([1, 2], (1, 2)),
}
KEPT = {
    "numbers": [1],
    "sequence": [1],
    "either": [1],
    "whatever": [1, [2]],
    "bare": [1],
    "unknown_list": [1],
    "undeclared": [1],
    "number_or_pair": 4,
    "pair": None,
    "nested": ((1, 2), (3, 4)),
}


@pytest.mark.parametrize(("name", "pair"), TUPLES.items(), ids=list(TUPLES))
def test_a_list_becomes_a_tuple_where_one_is_asked_for(name, pair):
    given, wanted = pair
    for creator in (Declared, functools.partial(Declared.__init__, None)):
        if name != "below" or isinstance(creator, type):
            got = as_declared(creator, {name: given}, "it")[name]
            assert repr(got) == repr(wanted)


@pytest.mark.parametrize(("name", "value"), KEPT.items(), ids=list(KEPT))
def test_anything_else_stays_what_it_is(name, value):
    assert repr(as_declared(Declared, {name: value}, "it")[name]) == repr(value)


def test_a_list_becomes_an_array_where_one_is_asked_for():
    assert np.array_equal(as_declared(Declared, {"array": [0.5, 1.0]}, "it")["array"], np.array([0.5, 1.0]))


def test_a_number_becomes_one_of_numpy_where_no_other_is_taken():
    def rescaled(end: np.floating | np.integer | np.ndarray = 1, other: float | np.floating = 0.0): ...

    for given, wanted in ((1, np.float32(1)), (0.5, np.float32(0.5)), (0.1, np.float64(0.1))):
        got = as_declared(rescaled, {"end": given, "other": given}, "it")
        assert (got["end"], got["end"].dtype) == (wanted, wanted.dtype)
        assert type(got["other"]) is type(given)


def test_what_has_no_signature_takes_what_it_is_given():
    assert as_declared(dict, {"a": [1]}, "it") == {"a": [1]}


def test_a_text_that_looks_like_a_tuple_is_refused_where_no_text_is_taken():
    with pytest.raises(
        ConfigError, match=r"it: pair is the string '\(1, 2\)'; write a tuple as .*!tuple \[84, 84, 1\]"
    ):
        as_declared(Declared, {"pair": "(1, 2)"}, "it")
    assert as_declared(Declared, {"whatever": "(1, 2)"}, "it") == {"whatever": "(1, 2)"}


@pytest.mark.parametrize("shape", [[2, 2], (2, 2)])
def test_wrappers_of_gymnasium_take_lists(shape):
    env = wrap(gymnasium.make("CartPole-v1"), [{"ReshapeObservation": {"shape": shape}}])
    assert env.observation_space.shape == (2, 2)
    env = wrap(gymnasium.make("Pendulum-v1"), [{"RescaleAction": {"min_action": [-3.0], "max_action": [3.0]}}])
    assert env.action_space.high.tolist() == [3.0]
    for bounds in ((-1, 1.0), (np.float32(-1), np.float64(1))):
        config = override(Config(), {"env.wrappers": [{"RescaleAction": dict(zip(ENDS, bounds, strict=True))}]})
        env = wrap(gymnasium.make("Pendulum-v1"), config.env.wrappers)
        assert (env.action_space.low, env.action_space.high) == (-1.0, 1.0)


ENDS = ("min_action", "max_action")


class Sized(gymnasium.Env):
    """An environment whose keyword has to be a tuple."""

    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, size: tuple[int, int]) -> None:
        assert isinstance(size, tuple)
        self.observation_space = gymnasium.spaces.Box(0, 1, size, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action):
        return np.zeros(self.observation_space.shape, np.float32), 1.0, False, False, {}


@pytest.mark.parametrize("size", ["[2, 3]", "!tuple [2, 3]", [2, 3], (2, 3)])
@pytest.mark.parametrize("workers", [0, 1])
def test_environments_take_lists(size, workers):
    gymnasium.register("Sized-v0", entry_point=f"{__name__}:Sized")
    try:
        kwargs = f"{{size: {size}}}" if isinstance(size, str) else {"size": size}
        env = {"env.id": "Sized-v0", "env.kwargs": kwargs}
        envs = make_envs(override(Config(), {**env, "env.num_envs": 1, "env.workers": workers}))
        assert envs.observation_space.shape == (2, 3)
        envs.close()
    finally:
        gymnasium.registry.pop("Sized-v0")
