"""Make a single environment from an id or a factory, and apply wrappers to it."""

from __future__ import annotations

import contextlib
import copy
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import gymnasium
from gymnasium.envs.registration import EnvSpec

from ppo_lab.envs.adapters.declared import as_declared
from ppo_lab.envs.adapters.env_memory import Snapshot
from ppo_lab.envs.adapters.factories import check_has_spaces, complaint
from ppo_lab.envs.adapters.ids import check_kwargs, explained, make_single
from ppo_lab.envs.adapters.info_masks import MaskFromInfo, Offered, offered_mask, usable
from ppo_lab.envs.adapters.lifetime import NewEachEpisode, SeedOnce
from ppo_lab.errors import ConfigError, EnvError, describe_error

Factory = Callable[[int], gymnasium.Env]  # the number of the environment -> the environment
Wrappers = Sequence[str | Mapping[str, Mapping[str, Any]]]
INSTEAD = {"NormalizeObservation": "model.normalize_obs"}  # no policy carries its statistics -> what does


@dataclass(frozen=True)
class Maker:
    """Makes environment `index` of a set, here or in a worker process: it can be pickled if its source can.

    source: Gymnasium's spec of an id, or a function of the index. kwargs are for an id only.
    Calling it raises ConfigError for kwargs or wrappers that do not exist, EnvError if making the environment fails.
    """

    source: EnvSpec | Factory
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: Wrappers = ()
    mask_from_info: bool | Literal["auto"] = False  # "auto" must be `settled` first
    seed_episodes: bool = True
    new_each_episode: bool = False

    @property
    def name(self) -> str:
        """The name of the environment in messages."""
        return self.source.id if isinstance(self.source, EnvSpec) else "env_factory"

    def __call__(self, index: int) -> gymnasium.Env:
        """Make environment number `index`."""
        if self.new_each_episode:
            env: gymnasium.Env = NewEachEpisode(partial(self._make, index))
        else:
            env = self._make(index)
        return env if self.seed_episodes else SeedOnce(env)

    def _make(self, index: int) -> gymnasium.Env:
        """Make a new object with its wrappers."""
        if isinstance(self.source, EnvSpec):
            env = make_single(self.source, self.kwargs)
        else:
            env = _from_factory(self.source, index)
        try:
            check_has_spaces(env, self.name)
            env = wrap(env, self.wrappers)
            return MaskFromInfo(env) if self.mask_from_info is True else env
        except BaseException:
            env.close()
            raise

    def settled(self) -> tuple[Maker, Offered | None]:
        """Return a Maker with `mask_from_info` decided, the same for all environments, and the mask that was found.

        Makes one environment for this, resets it once and closes it: an environment that counts its resets would
        notice a second one.
        """
        env = replace(self, mask_from_info=False)(0)
        shared = Snapshot(env)
        try:
            offered = offered_mask(env)
        finally:
            shared.put_back()
            with contextlib.suppress(Exception):
                env.close()
        if self.mask_from_info != "auto":
            return self, offered
        return replace(self, mask_from_info=usable(offered)), offered


def _from_factory(factory: Factory, index: int) -> gymnasium.Env:
    """Call the factory. Raises EnvError if it raises or does not make a gymnasium.Env."""
    try:
        env = factory(index)
    except Exception as error:
        raise EnvError(f"env_factory({index}) raised {describe_error(error)}") from error
    if not isinstance(env, gymnasium.Env):
        raise EnvError(f"env_factory({index}) made {complaint(env)}")
    return env


def wrap(env: gymnasium.Env, wrappers: Wrappers) -> gymnasium.Env:
    """Apply wrappers of gymnasium.wrappers to an environment, the first one innermost: "Name" or {"Name": {kwargs}}.

    Raises ConfigError for a name or a keyword that does not exist, EnvError if a wrapper does not fit.
    """
    for entry in wrappers:
        if not isinstance(entry, str) and len(entry) != 1:
            raise ConfigError(f"env.wrappers: each entry is one name with its keywords, got {dict(entry)}")
        name, kwargs = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
        what = f"env.wrappers: {name}"
        with explained(what, "gymnasium.wrappers"):
            wrapper = find_wrapper(name)
            check_kwargs(name, wrapper, kwargs or {}, taken=("env",), where="env.wrappers")
            env = wrapper(env, **as_declared(wrapper, copy.deepcopy(dict(kwargs or {})), what))
    return env


def find_wrapper(name: str) -> Callable[..., gymnasium.Env]:
    """Return a single-environment wrapper of gymnasium.wrappers. Raises ConfigError with the nearest names.

    Also raises it for one that normalises observations by running statistics, which evaluation and predict do not have.
    """
    if name in INSTEAD:
        raise ConfigError(
            f"env.wrappers: {name} keeps running statistics, which evaluation and predict do not have; "
            f"remove it and set {INSTEAD[name]} to true"
        )
    known = [one for one in gymnasium.wrappers.__all__ if one != "vector"]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"env.wrappers: gymnasium.wrappers has no {name!r}; {hint}")
    found: Callable[..., gymnasium.Env] = getattr(gymnasium.wrappers, name)
    return found


def time_limit(env: gymnasium.Env) -> int | None:
    """Return the number of steps after which an episode is truncated; None: no limit, or it is not known."""
    inner: Any = env
    limits: list[Any] = []
    while isinstance(inner, gymnasium.Wrapper):
        if isinstance(inner, gymnasium.wrappers.TimeLimit):
            limit = getattr(inner, "_max_episode_steps", None)  # private: a newer Gymnasium may rename it
            limits.append(inner.spec.max_episode_steps if limit is None and inner.spec is not None else limit)
        inner = inner.env
    for name in ("max_episode_steps", "max_steps"):  # MiniGrid: max_steps
        with contextlib.suppress(Exception):  # a third party's __getattr__ or property may raise
            limits.append(getattr(inner, name, None))
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)
