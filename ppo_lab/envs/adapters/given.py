"""Resolve what users pass in place of `config.env`: environments, ids, specs, or functions that make environments."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import gymnasium
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from ppo_lab.config import Config, EnvConfig
from ppo_lab.config.loading import override
from ppo_lab.envs.adapters.factories import FromSpec, OneOfEach, as_factory, check_has_spaces, complaint
from ppo_lab.envs.adapters.ids import find_spec
from ppo_lab.envs.adapters.info_masks import MaskFromInfo, offered_mask, tell_mask, usable
from ppo_lab.envs.adapters.lifetime import SeedOnce
from ppo_lab.envs.adapters.maker import wrap
from ppo_lab.envs.adapters.single import SingleEnvs
from ppo_lab.envs.adapters.vector import VectorEnvs
from ppo_lab.envs.contract import EnvFactory, Envs, EnvsWrapper
from ppo_lab.envs.wrappers import stacked_and_timed
from ppo_lab.errors import ConfigError, EnvError, describe_error

LOG = logging.getLogger("ppo_lab")
FOR_MADE_ONES = ("kwargs", "workers", "vector", "retry", "life_loss", "new_each_episode")  # of environments made here


def resolve_given(
    config: Config, given: object, device: torch.device | str = "cpu", name: str = "envs"
) -> tuple[Config, Envs | EnvFactory | None]:
    """Resolve `given`. Returns the config updated for it, and Envs, a factory, or None: config.env makes them.

        Envs                                          themselves
        "CartPole-v1", a registered EnvSpec           None, with config.env.id
        a function, a class, a partial, an EnvSpec    a function of the index (`as_factory`)
        a list of these                               a function; config.env.num_envs is their number
        a gymnasium.Env                               itself if num_envs is 1; else a function that uses its spec
        a list of them, a VectorEnv                   themselves; config.env.num_envs is their number

    Idempotent: the result may be passed again. Raises ConfigError or EnvError with one line that says what to write.
    """
    if given is None or isinstance(given, Envs):
        return config, given
    if isinstance(given, EnvSpec) and gymnasium.registry.get(given.id) == given:
        given = given.id
    if isinstance(given, str):
        return override(config, {"env.id": given}), None
    if isinstance(given, VectorEnv):
        _refuse_settings(config, given, (*FOR_MADE_ONES, "wrappers", "mask_from_info", "seed_episodes"))
        vector: Envs = VectorEnvs(given, device)
        return _with_number(config, given.num_envs), stacked_and_timed(vector, config, type(given).__name__)
    if isinstance(given, gymnasium.Env):
        return _one(config, given, device, name)
    if isinstance(given, list | tuple):
        return _several(config, given, device, name)
    if isinstance(given, EnvSpec):
        return config, FromSpec(given)
    if callable(given) and not (hasattr(given, "step") and hasattr(given, "reset") and not isinstance(given, type)):
        return config, as_factory(given, name)
    raise ConfigError(f"{name}: {complaint(given)}")


def factory_of(given: Envs | EnvFactory | None) -> EnvFactory | None:
    """Return `given` if it is a factory; None if it is Envs or None."""
    return None if isinstance(given, Envs) else given


class LeftOpen(EnvsWrapper):
    """Environments that belong to their caller: `close` leaves them open."""

    def close(self) -> None:
        """Do nothing: their owner closes them."""


def left_open(config: Config, given: object, name: str = "env") -> tuple[Config, Any]:
    """Resolve as `resolve_given`, but leave environments that exist already open: the caller owns them."""
    config, made = resolve_given(config, given, name=name)
    return config, LeftOpen(made) if made is not None and factory_of(made) is None else made  # type: ignore[arg-type]  # Envs then


class _Borrowed(gymnasium.Wrapper):
    """A wrapper for an environment that the caller owns: `close` leaves it open."""

    def close(self) -> None:
        """Do nothing: its owner closes it."""


def one_of(given: Any, name: str = "env") -> EnvFactory:
    """Return a function that makes (or lends) one environment from `given`, to inspect it. Raises ConfigError."""
    if isinstance(given, list | tuple) and given:
        given = given[0]
    if isinstance(given, gymnasium.Env):
        borrowed = given
        return lambda _: _Borrowed(borrowed)
    if isinstance(given, str):
        given = find_spec(given)
    if isinstance(given, EnvSpec):
        return FromSpec(given)
    if callable(given) and not isinstance(given, Envs):
        return as_factory(given, name)
    if isinstance(given, VectorEnv | Envs):  # `complaint` would advise to pass it directly
        got = f"a {type(given).__name__} of {given.num_envs} environments"
    else:
        got = complaint(given)
    raise ConfigError(f"{name}: expected one environment, got {got}")


def _one(config: Config, env: gymnasium.Env, device: torch.device | str, name: str) -> tuple[Config, Envs | EnvFactory]:
    """Resolve a single environment: use it if one is needed, else make more of them from its spec."""
    number = config.env.num_envs
    spec = _spec_of(env)
    if number == 1 or (number == "auto" and spec is None):
        return _as_they_are(_with_number(config, 1), [env], device)
    what = type(env.unwrapped).__name__
    if spec is None:
        raise ConfigError(
            f"{name}: got one {what} object, but env.num_envs is {number}; pass a function that makes one, "
            f"{name}=lambda: {what}(), or set env.num_envs to 1"
        )
    make = FromSpec(spec)
    try:
        again = make(0)
    except EnvError as error:
        raise ConfigError(
            f"{name}: cannot make a second {what} from the spec of this one ({describe_error(error)}); pass a "
            f"function that makes one, {name}=lambda: ..., or set env.num_envs to 1"
        ) from error
    alike = (again.observation_space, again.action_space) == (env.observation_space, env.action_space)
    again.close()
    if not alike:
        raise ConfigError(
            f"{name}: a second {what}, made from the spec of this one, has other spaces; pass a function that makes "
            f"one, {name}=lambda: ..., or set env.num_envs to 1"
        )
    LOG.warning("%s: %s is recreated from its spec, without any changes that were made to the object", name, what)
    return config, make


def _several(
    config: Config, given: Sequence[Any], device: torch.device | str, name: str
) -> tuple[Config, Envs | EnvFactory]:
    """Resolve a list of environments, or of functions, ids and specs that make one each."""
    if not given:
        raise ConfigError(f"{name}: an empty list; at least one environment is needed")
    if all(isinstance(one, gymnasium.Env) for one in given):
        return _as_they_are(_with_number(config, len(given)), given, device)
    makers: list[EnvFactory] = []
    for i, one in enumerate(given):
        if isinstance(one, str):
            makers.append(FromSpec(find_spec(one, config.env.allow_import)))
        elif isinstance(one, EnvSpec):
            makers.append(FromSpec(one))
        elif isinstance(one, type) or (callable(one) and not hasattr(one, "step")):
            makers.append(as_factory(one, f"{name}[{i}]"))
        elif isinstance(one, gymnasium.Env):
            raise ConfigError(f"{name}[{i}]: an environment among functions that make one; pass only one kind")
        else:
            raise ConfigError(f"{name}[{i}]: {complaint(one)}")
    return _with_number(config, len(given)), OneOfEach(tuple(makers))


def _as_they_are(config: Config, given: Sequence[gymnasium.Env], device: torch.device | str) -> tuple[Config, Envs]:
    """Step environments that exist already, with the wrappers and settings of config.env applied."""
    _refuse_settings(config, given[0], FOR_MADE_ONES)
    for env in given:
        check_has_spaces(env, type(env.unwrapped).__name__)
    envs = [wrap(env, config.env.wrappers) for env in given]
    name = type(given[0].unwrapped).__name__
    masked = config.env.mask_from_info
    if masked == "auto":
        offered = offered_mask(envs[0])
        masked = usable(offered)
        tell_mask(name, "auto", offered)
    envs = [MaskFromInfo(env) for env in envs] if masked else envs
    made: Envs = SingleEnvs(envs if config.env.seed_episodes else [SeedOnce(env) for env in envs], device)
    return config, stacked_and_timed(made, config, name)


def _with_number(config: Config, number: int) -> Config:
    """Set env.num_envs to the number of environments that were passed."""
    asked = config.env.num_envs
    if asked == number:
        return config
    if asked != "auto":
        LOG.info("env.num_envs is %d and not %d, since that many environments were passed", number, asked)
    return override(config, {"env.num_envs": number})


def _refuse_settings(config: Config, given: object, keys: Sequence[str]) -> None:
    """Raise ConfigError for a setting that cannot apply to environments that exist already."""
    for key in keys:
        value = getattr(config.env, key)
        if value != EnvConfig.model_fields[key].default and (key, value) != ("mask_from_info", False):
            what = type(given).__name__
            raise ConfigError(f"env.{key}: it is for environments made here; pass a function instead of a {what}")


def _spec_of(env: gymnasium.Env) -> EnvSpec | None:
    """Return the spec of an environment with its wrappers; None if it is not known."""
    try:
        return env.spec
    except Exception:  # a wrapper's arguments cannot be copied
        return None
