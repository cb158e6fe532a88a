"""Call functions that make environments, and explain in one line what is not such a function or environment.

Imports Gymnasium but not torch: every worker process imports this module, and torch would cost each of them seconds.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from ppo_lab.envs.adapters.ids import make_single
from ppo_lab.errors import ConfigError, EnvError, describe_error, one_line

Factory = Callable[[int], gymnasium.Env]  # the number of the environment -> the environment
CONTRACT = "ppo_lab.envs.contract.Envs"  # by name: importing it would import torch
ENVS = ("num_envs", "observation_space", "action_space", "device", "reset", "step")
INDEX_NAMES = ("index", "env_index", "idx", "rank", "i")  # passed even where it has a default


@dataclass(frozen=True)
class WithoutIndex:
    """A function without arguments as a function of the index."""

    make: Callable[[], gymnasium.Env]

    def __call__(self, index: int) -> gymnasium.Env:
        """Make environment number `index`; `make` does not get the number."""
        return self.make()


@dataclass(frozen=True)
class OneOfEach:
    """Several functions: function i modulo their number makes environment i."""

    makers: Sequence[Factory]

    def __call__(self, index: int) -> gymnasium.Env:
        """Make environment number `index`."""
        return self.makers[index % len(self.makers)](index)


@dataclass(frozen=True)
class FromSpec:
    """Makes environments from Gymnasium's `EnvSpec`: an id with its arguments and wrappers."""

    spec: EnvSpec

    def __call__(self, index: int) -> gymnasium.Env:
        """Make one more environment of this spec."""
        return make_single(self.spec, {})


def as_factory(given: Any, name: str = "envs") -> Factory:
    """Convert a callable to a function of the index. Raises ConfigError for one that needs other arguments.

    A class, or a partial of one, is called without arguments: its first argument is a render mode or a size, not an
    environment number. A function gets the index if it requires exactly one argument, or its first one is in
    INDEX_NAMES.
    """
    inner: Any = given
    while isinstance(inner, partial):
        inner = inner.func
    what = getattr(inner, "__name__", type(inner).__name__)
    if isinstance(inner, type) and issubclass(inner, VectorEnv):
        raise ConfigError(f"{name}: the class {what} instead of an environment; pass {what}(...)")
    try:
        parameters = list(inspect.signature(given).parameters.values())
    except (TypeError, ValueError):
        return WithoutIndex(given) if isinstance(inner, type) else given  # written in C: its error says enough
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    needed = [one.name for one in positional if one.default is one.empty]
    needed += [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    takes_index = bool(needed and positional and needed == [positional[0].name])
    if needed and (isinstance(inner, type) or not takes_index):
        call = f"{what}({', '.join(f'{one}=...' for one in needed)})"
        kind = "the class" if isinstance(inner, type) else "the function"
        raise ConfigError(f"{name}: {kind} {what} needs {', '.join(needed)}; write {name}=lambda: {call}")
    if isinstance(inner, type):
        return WithoutIndex(given)
    named = bool(positional) and positional[0].name in INDEX_NAMES
    takes_any = not positional and any(one.kind is one.VAR_POSITIONAL for one in parameters)
    return given if takes_index or named or takes_any else WithoutIndex(given)


def check_has_spaces(env: gymnasium.Env, name: str) -> None:
    """Raise EnvError for an environment without an observation space or an action space."""
    for what in ("observation_space", "action_space"):
        try:
            got = getattr(env, what, None)
        except Exception as error:
            raise EnvError(f"{name}: {what} of {type(env).__name__} raised {describe_error(error)}") from error
        if not isinstance(got, gymnasium.Space):
            has = f"no {what}" if got is None else f"the {what} {one_line(repr(got), 80)}"
            example = "self.action_space = gymnasium.spaces.Discrete(2)"
            if what == "observation_space":
                example = "self.observation_space = gymnasium.spaces.Box(-1, 1, (3,))"
            kind = type(env.unwrapped).__name__
            raise EnvError(f"{name}: {kind} has {has}; its __init__ must set one, such as {example}")


def complaint(thing: Any) -> str:
    """Describe in one line an object that is not a gymnasium.Env, and what to write instead."""
    kind = type(thing).__name__
    if thing is None:
        return "None instead of a gymnasium.Env: is a `return` missing?"
    ours = any(f"{base.__module__}.{base.__name__}" == CONTRACT for base in type(thing).__mro__)
    if isinstance(thing, VectorEnv) or ours:
        return f"a {kind} of {thing.num_envs} environments: pass it directly, or make one environment at a time"
    if isinstance(thing, gymnasium.Env):
        return f"a {kind}"
    if isinstance(thing, type):
        return f"the class {thing.__name__} instead of an environment: pass {thing.__name__}()"
    if isinstance(thing, str | EnvSpec):
        return (
            f"the id {one_line(getattr(thing, 'id', thing), 80)!r} instead of an environment: use gymnasium.make(...)"
        )
    if hasattr(thing, "possible_agents") or hasattr(thing, "agents"):
        return (
            f"a multi-agent {kind} (PettingZoo); expected a gymnasium.Env: write one that plays one of the "
            "agents, or make a vector environment with supersuit.pettingzoo_env_to_vec_env_v1"
        )
    if hasattr(thing, "action_spec"):
        return f"a {kind} of dm_env; expected a gymnasium.Env: convert it with shimmy.DmControlCompatibilityV0"
    if hasattr(thing, "step") and hasattr(thing, "reset"):
        return _nearly(thing, kind)
    if callable(thing):
        return f"a {kind} that must be called once more; expected a gymnasium.Env: write envs=lambda i: make(i)()"
    if isinstance(thing, list | tuple | dict):
        return f"a {kind}; expected one gymnasium.Env"
    return f"a {kind}; expected a gymnasium.Env"


def _nearly(thing: Any, kind: str) -> str:
    """Describe an environment that is not a gymnasium.Env: of the old gym (reset takes no seed), or not a subclass."""
    missing = [name for name in ENVS if not hasattr(thing, name)]
    if hasattr(thing, "num_envs"):  # an incomplete ppo_lab.Envs
        lacks = f"; it has no {', '.join(missing)}" if missing else ""
        return f"a {kind} that is not a ppo_lab.Envs: write class {kind}(ppo_lab.Envs){lacks}"
    try:
        new = "seed" in inspect.signature(thing.reset).parameters
    except (TypeError, ValueError):
        new = False
    if new:
        return f"a {kind} that is not a gymnasium.Env: derive its class from gymnasium.Env"
    return (
        f"a {kind} of the old gym, whose reset takes no seed; expected a gymnasium.Env: "
        "convert it with shimmy.GymV21CompatibilityV0(env=...) (pip install 'shimmy[gym-v21]')"
    )
