"""How one single environment is made: from an id or by someone's function, with wrappers around it."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from ppo_lab.adapters.ids import check_kwargs, explained, make_single
from ppo_lab.adapters.loop import describe_error
from ppo_lab.errors import ConfigError, EnvError
from ppo_lab.flat_spaces import MASK_KEY, mask_size

Factory = Callable[[int], gymnasium.Env]  # the number of the environment -> the environment
Wrappers = Sequence[str | Mapping[str, Mapping[str, Any]]]
PLAIN_KEY = "obs"  # what an observation without keys is called once another one stands beside it


@dataclass(frozen=True)
class Maker:
    """Makes environment `index` of a set, here or in a worker process: it can be pickled if its source can.

    source: what Gymnasium registered under an id, or a function of the index. kwargs are for an id only.
    Calling it raises ConfigError for kwargs or wrappers that do not exist, EnvError if something in it fails.
    """

    source: EnvSpec | Factory
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: Wrappers = ()
    mask_from_info: bool = False

    @property
    def name(self) -> str:
        """What to call the environment in a message."""
        return self.source.id if isinstance(self.source, EnvSpec) else "env_factory"

    def __call__(self, index: int) -> gymnasium.Env:
        """Environment number `index`."""
        if isinstance(self.source, EnvSpec):
            env = make_single(self.source, self.kwargs)
        else:
            env = _from_factory(self.source, index)
        try:
            env = wrap(env, self.wrappers)
            return MaskFromInfo(env) if self.mask_from_info else env
        except BaseException:
            env.close()
            raise


def _from_factory(factory: Factory, index: int) -> gymnasium.Env:
    """What the function makes. Raises EnvError if it raises, or makes something else."""
    try:
        env = factory(index)
    except Exception as error:
        raise EnvError(f"env_factory({index}) raised {describe_error(error)}") from error
    if not isinstance(env, gymnasium.Env):
        raise EnvError(f"env_factory({index}) made a {type(env).__name__}; expected a gymnasium.Env")
    return env


def wrap(env: gymnasium.Env, wrappers: Wrappers) -> gymnasium.Env:
    """Wrappers of gymnasium.wrappers around an environment, the first one innermost: "Name" or {"Name": {kwargs}}.

    Raises ConfigError for a name or a keyword that does not exist, EnvError if a wrapper does not fit.
    """
    for entry in wrappers:
        if not isinstance(entry, str) and len(entry) != 1:
            raise ConfigError(f"env.wrappers: one name with its keywords each, got {dict(entry)}")
        name, kwargs = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
        what = f"env.wrappers: {name}"
        with explained(what, "gymnasium.wrappers"):
            wrapper = find_wrapper(name)
            check_kwargs(name, wrapper, kwargs or {}, taken=("env",), where="env.wrappers")
            env = wrapper(env, **copy.deepcopy(dict(kwargs or {})))
    return env


def find_wrapper(name: str) -> Callable[..., gymnasium.Env]:
    """A single-environment wrapper of gymnasium.wrappers. Raises ConfigError with the nearest names."""
    known = [one for one in gymnasium.wrappers.__all__ if one != "vector"]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"env.wrappers: gymnasium.wrappers has no {name!r}; {hint}")
    found: Callable[..., gymnasium.Env] = getattr(gymnasium.wrappers, name)
    return found


def time_limit(env: gymnasium.Env) -> int | None:
    """After how many steps an episode is cut off; None: it is not, or it does not say."""
    inner: Any = env
    limits: list[Any] = []
    while isinstance(inner, gymnasium.Wrapper):
        if isinstance(inner, gymnasium.wrappers.TimeLimit):
            limit = getattr(inner, "_max_episode_steps", None)  # private: a newer Gymnasium may name it otherwise
            limits.append(inner.spec.max_episode_steps if limit is None and inner.spec is not None else limit)
        inner = inner.env
    limits += [getattr(inner, name, None) for name in ("max_episode_steps", "max_steps")]  # MiniGrid: max_steps
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)


class MaskFromInfo(gymnasium.Wrapper):
    """Puts info["action_mask"] of `reset` and `step` into the observation, as the key "action_mask".

    An observation without keys becomes the key "obs". The mask may be one array of `mask_size` entries or nested like
    the action space; at the end of an episode it may be missing, since nothing is to be chosen there.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        """Raises EnvError if no action can be masked or the observation has such a key already."""
        super().__init__(env)
        size = mask_size(env.action_space)
        if not size:
            raise EnvError(f"env.mask_from_info: nothing of the action space {env.action_space} can be masked")
        inner = env.observation_space
        self._named = isinstance(inner, spaces.Dict)
        entries = dict(inner.spaces) if isinstance(inner, spaces.Dict) else {PLAIN_KEY: inner}
        if MASK_KEY in entries:
            raise EnvError(f"env.mask_from_info: the observation has a key {MASK_KEY!r} already; set it to false")
        self._size = size
        self.observation_space = spaces.Dict({**entries, MASK_KEY: spaces.MultiBinary(size)}, sort_keys=False)

    def reset(self, **how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """As the environment, with the mask in the observation."""
        obs, info = self.env.reset(**how)
        return self._with_mask(obs, info, ended=False), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """As the environment, with the mask in the observation."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._with_mask(obs, info, bool(terminated or truncated)), reward, terminated, truncated, info

    def _with_mask(self, obs: Any, info: Mapping[str, Any], ended: bool) -> dict[str, Any]:
        mask = info.get(MASK_KEY)
        if mask is None and not ended:
            raise EnvError(f"env.mask_from_info: info has no {MASK_KEY!r}, only {', '.join(info) or 'nothing'}")
        flat = (
            np.ones(self._size, np.bool_)
            if mask is None
            else np.concatenate(_rows(self.action_space, mask)).astype(np.bool_)
        )
        if len(flat) != self._size:
            raise EnvError(f"env.mask_from_info: {len(flat)} entries, {self.action_space} takes {self._size}")
        return {**(obs if self._named else {PLAIN_KEY: obs}), MASK_KEY: flat}


def _rows(space: gymnasium.Space, mask: Any) -> list[np.ndarray]:
    """A mask as flat arrays: one that is nested like the action space in its order, where Box has none."""
    if isinstance(space, spaces.Dict) and isinstance(mask, Mapping):
        return [row for key, inner in space.spaces.items() if key in mask for row in _rows(inner, mask[key])]
    if isinstance(mask, tuple):  # of Tuple or of the components of MultiDiscrete
        inners = space.spaces if isinstance(space, spaces.Tuple) else [space] * len(mask)
        return [row for inner, part in zip(inners, mask, strict=True) for row in _rows(inner, part)]
    return [] if isinstance(space, spaces.Box) else [np.asarray(mask).reshape(-1)]
