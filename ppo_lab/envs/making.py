"""Make the environments of `config.env`, or of the factory that replaces it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import torch

from ppo_lab.config import Config, EnvConfig
from ppo_lab.config.env import auto_num_envs
from ppo_lab.envs.adapters.ids import call_creator, find_spec, make_vector
from ppo_lab.envs.adapters.info_masks import tell_mask
from ppo_lab.envs.adapters.maker import Maker
from ppo_lab.envs.contract import EnvFactory, Envs
from ppo_lab.envs.registry import BATCHED
from ppo_lab.errors import ConfigError, describe_error


def make_envs(
    config: Config,
    device: torch.device | str | None = None,
    env_factory: Any = None,
    aloud: bool = False,
    before_each: Callable[[], None] = lambda: None,
) -> Envs:
    """Make the N environments of config.env. device: of their tensors; None: the CPU.

    Our own environments are one batched program on the device. All others step on the CPU: with `vector` as the id's
    own vector environment, else one by one, in this process or in `workers` subprocesses with the same results.
    env_factory: makes a single environment in place of env.id (with `workers` it must be importable there), or anything
    else that `adapters.given.resolve_given` takes. aloud: log what was found, such as masks.
    before_each: called before a single environment is made in this process; it may raise.
    Raises ConfigError or EnvError with one line: what is wrong with the id, its kwargs, its wrappers or its spaces.
    """
    from ppo_lab.envs.adapters.given import factory_of, resolve_given  # here, since these modules import this one
    from ppo_lab.envs.wrappers import stacked_and_timed

    place = torch.device("cpu" if device is None else device)
    config, given = resolve_given(config, env_factory, place, "env_factory")
    if (make := factory_of(given)) is None and given is not None:
        return given  # type: ignore[return-value]  # not a factory, so they are environments
    envs = _make_unwrapped(config.env, place, make, aloud, before_each)
    return stacked_and_timed(envs, config, config.env.id if make is None else "env_factory")


def _make_unwrapped(
    settings: EnvConfig,
    device: torch.device,
    env_factory: EnvFactory | None,
    aloud: bool,
    before_each: Callable[[], None],
) -> Envs:
    """Make the environments without their batched wrappers."""
    from ppo_lab.envs.adapters.atari import is_atari, make_atari
    from ppo_lab.envs.adapters.single import SingleEnvs
    from ppo_lab.envs.adapters.vector import VectorEnvs
    from ppo_lab.envs.adapters.workers import WorkerEnvs

    ours = env_factory is None and settings.id in BATCHED
    batched = settings.vector or ours
    _check_settings(settings, batched, env_factory)
    num_envs = auto_num_envs(settings)
    if ours:
        if settings.info_metrics:
            raise ConfigError(f"env.info_metrics: {settings.id} is one batched program, which has no infos")
        given = {"num_envs": num_envs, "device": device}
        program: Envs = call_creator(settings.id, BATCHED[settings.id], settings.kwargs, given)
        return program
    if settings.vector:
        spec = find_spec(settings.id, settings.allow_import, BATCHED)
        if is_atari(spec):
            if settings.frame_stack > 1:
                raise ConfigError(f"env.frame_stack: {spec.id} stacks by itself; set env.kwargs to {{stack_num: n}}")
            return make_atari(spec, num_envs, settings.kwargs, settings.life_loss, device, settings.info_keys)
        if settings.life_loss:
            raise ConfigError(f"env.life_loss: {spec.id} has no lives; it is for ids 'ALE/...'")
        return VectorEnvs(make_vector(spec, num_envs, settings.kwargs), device, settings.info_keys)
    make = make_maker(settings, env_factory, aloud)
    if settings.workers:
        return WorkerEnvs(make, num_envs, settings.workers, device, settings.retry, settings.info_keys)
    with ExitStack() as undo:
        envs = []
        for index in range(num_envs):
            before_each()
            envs.append(make(index))
            undo.callback(envs[-1].close)
        made = SingleEnvs(envs, device, make, settings.retry, settings.info_keys)
        undo.pop_all()  # all were made: from now on `made` closes them
        return made


def _check_settings(settings: EnvConfig, batched: bool, env_factory: EnvFactory | None) -> None:
    """Raise ConfigError for settings that exclude each other."""
    if env_factory is not None and (settings.vector or settings.kwargs):
        key = "vector" if settings.vector else "kwargs"
        raise ConfigError(f"env.{key}: it is for an env.id, not for environments that an env_factory makes")
    if settings.workers and batched:
        raise ConfigError(f"env.workers: {settings.id} is stepped as one batched program; set env.workers to 0")
    asked = {
        "wrappers": settings.wrappers, "mask_from_info": settings.mask_from_info is True, "retry": settings.retry,
        "seed_episodes": not settings.seed_episodes, "new_each_episode": settings.new_each_episode,
    }  # fmt: skip
    for key, wanted in asked.items():
        if batched and wanted:
            raise ConfigError(f"env.{key}: it is for single environments; {settings.id} is one batched program")
    if settings.life_loss and not settings.vector:
        raise ConfigError("env.life_loss: it is for ids 'ALE/...' with env.vector true")


def make_maker(settings: EnvConfig, env_factory: EnvFactory | None = None, aloud: bool = False) -> Maker:
    """Return the Maker of a single environment for these settings. Raise ConfigError for an id that does not exist.

    If `mask_from_info` is "auto", one is made to find out whether there are masks. aloud: log whether they are used.
    """

    source = env_factory or find_spec(settings.id, settings.allow_import, BATCHED)
    maker = Maker(
        source, {} if env_factory else settings.kwargs, settings.wrappers, settings.mask_from_info,
        settings.seed_episodes, settings.new_each_episode,
    )  # fmt: skip
    if settings.mask_from_info is True or (settings.mask_from_info is False and not aloud):
        return maker
    settled, offered = maker.settled()
    if aloud:
        tell_mask(maker.name, settings.mask_from_info, offered)
    return settled


def why_inexact(config: Config, env_factory: EnvFactory | None = None) -> str | None:
    """Return why a resumed run would not continue bit for bit in these environments; None if no reason was found."""
    from ppo_lab.envs.adapters.atari import is_atari
    from ppo_lab.envs.adapters.probe import why_inexact as probe

    settings = config.env
    name = settings.id if env_factory is None else "env_factory"
    if env_factory is None and settings.id in BATCHED:
        return None
    try:
        if settings.vector:
            if is_atari(find_spec(settings.id, settings.allow_import, BATCHED)):
                return None  # its games follow from their seeds
            return f"the vector environment of {name} cannot save its state, and its episodes have no seeds"
        make = make_maker(settings, env_factory)
        reason = probe(lambda: make(0))
    except ConfigError:
        raise
    except Exception as error:
        return f"trying whether {name} is deterministic failed: {describe_error(error)}"
    if reason is not None and not settings.seed_episodes:
        return f"env.seed_episodes is false, so that an episode cannot be repeated from a seed of its own: {reason}"
    return reason


def rewound_by_seeds(config: Config, env_factory: EnvFactory | None = None) -> str | None:
    """Return what restarts with every seed in a single environment, so that all episodes play the first; or None."""
    from ppo_lab.envs.adapters.probe import rewound_by_seeds as probe

    settings = config.env
    batched = settings.vector or (env_factory is None and settings.id in BATCHED)
    if batched or not settings.seed_episodes or settings.new_each_episode:
        return None
    with suppress(Exception):  # errors are reported when training starts
        make = make_maker(settings, env_factory)
        return probe(lambda: make(0))
    return None
