"""What a set of environments is to the trainer: the `Envs` protocol, its `Step`, and `make_envs`.

Everything is batched over N environments and lies on one device. What differs between our own batched programs,
Gymnasium's single environments (here or in subprocesses) and third-party vector environments stays behind this
protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple, Protocol

import torch
from gymnasium import Env, Space
from gymnasium.spaces import Box, Dict
from torch import Tensor

from ppo_lab.adapters.ids import call_creator, find_spec, make_vector
from ppo_lab.adapters.info_masks import tell_mask
from ppo_lab.adapters.making import Maker
from ppo_lab.adapters.retries import describe_error, one_line
from ppo_lab.config import Config, EnvConfig
from ppo_lab.errors import ConfigError, EnvError
from ppo_lab.flat_spaces import MASK_KEY, flatten_space, leaf_spaces, mask_size

Obs = Tensor | dict[str, Tensor]  # flat: nested Dict and Tuple spaces have keys "a/b"
Action = Tensor | dict[str, Tensor]  # a dictionary for Dict and Tuple action spaces, likewise flat
EnvFactory = Callable[[int], Env]  # the number of an environment -> the environment

OBS_DTYPES = ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "float16", "float32", "float64", "bool")
ACTION_DTYPES = ("float32", "float64")
AUTO_NUM_ENVS = 8  # what most published settings use; one by one, more of them only make the rollout longer
AUTO_NUM_ENVS_BATCHED = 64  # of our own: a step of 64 costs about what a step of 8 does


class Step(NamedTuple):
    """What one action of each environment led to. All tensors on one device, first dimension N."""

    obs: Obs  # (N, *obs) what to act on next: already the new episode where one has ended
    reward: Tensor  # (N,) float32
    terminated: Tensor  # (N,) bool  the task ended: nothing comes after, no bootstrap
    truncated: Tensor  # (N,) bool  it was cut off: the episode would have gone on
    final_obs: Obs  # (N, *obs) what the action led to; differs from obs only where an episode ended
    valid: Tensor  # (N,) bool  False: no experience in this row (the reset row of a next-step-autoreset environment)


class Envs(Protocol):
    """N environments stepped together.

    `step` takes actions as the environment knows them (already mapped into the Box, or starting at `Discrete.start`).
    Tensors in a Step may be reused by the next `step`: a caller that keeps them copies them.

    Some have more, to be asked for with getattr: `state_dict()` and `load_state_dict()`; `metrics()`, numbers by name
    for the line of each update ("terrain/level": 3.0), asked for once an update; `max_episode_steps`, None where there
    is no limit; and `episode_done`, (N,) bool after a step: the episode really ended. Where it is None or
    missing, terminated | truncated says so. They differ in Atari games where a lost life terminates the task.
    `episodes_under_way()`, a `state_dict()` quick enough for every update; `lost` and `why_inexact_now()`, why the run
    cannot be resumed or repeated exactly from here (None: it can).
    `capturable`, True where a CUDA graph can hold `step`: it asks the device for nothing, writes what it remembers in
    place (`state_dict()` has all of it), draws from `generator` alone, and starts episodes in the same step.
    """

    num_envs: int
    observation_space: Space  # of one environment; flat: a leaf, or a Dict of leaves (see flat_spaces)
    action_space: Space  # of one environment; flat
    device: torch.device
    next_step_autoreset: (
        bool  # True: the row after an ending is the reset, `valid` is False there and obs is still final
    )

    def reset(self, seed: int) -> Obs:
        """Start all N episodes from one run seed; returns the first observations (N, *obs)."""
        ...

    def step(self, action: Action) -> Step:
        """Act once in each environment: (N,) int64 for Discrete, (N, *shape) for the others, a dictionary for Dict."""
        ...

    def close(self) -> None:
        """Give back what the environments hold (windows, processes). Twice is harmless."""
        ...


def make_envs(
    config: Config,
    device: torch.device | str | None = None,
    env_factory: Any = None,
    aloud: bool = False,
    before_each: Callable[[], None] = lambda: None,
) -> Envs:
    """The N environments that config.env asks for. device: where their tensors lie; None: the CPU.

    Our own environments are one batched program on the device. All others step on the CPU: with `vector` as the id's
    own vector environment, else one by one, in this process or in `workers` subprocesses with the same results.
    env_factory: makes a single environment in place of env.id (with `workers` it must be importable there), or anything
    else that `adapters.given.understood` takes. aloud: log what was found out, such as masks.
    before_each: called before a single environment is made in this process; it may raise.
    Raises ConfigError or EnvError with one line: what is wrong with the id, its kwargs, its wrappers or its spaces.
    """
    from ppo_lab.adapters.given import factory_of, understood  # these stand on this file
    from ppo_lab.wrappers import stacked_and_timed

    place = torch.device("cpu" if device is None else device)
    config, given = understood(config, env_factory, place, "env_factory")
    if (make := factory_of(given)) is None and given is not None:
        return given  # type: ignore[return-value]  # not a factory, so they are environments
    envs = _make_unwrapped(config.env, place, make, aloud, before_each)
    return stacked_and_timed(envs, config, config.env.id if make is None else "env_factory")


def auto_num_envs(settings: EnvConfig) -> int:
    """env.num_envs, where "auto" is 64 for our own batched programs and 8 for others.

    With `workers` it is the next multiple of them, so that each has equally much to do. It depends on the settings and
    not on the machine: another number of environments would be another run.
    """
    from environment import BATCHED

    if settings.num_envs != "auto":
        return settings.num_envs
    if settings.id in BATCHED:
        return AUTO_NUM_ENVS_BATCHED
    each = max(1, settings.workers)
    return -(-AUTO_NUM_ENVS // each) * each


def _make_unwrapped(
    settings: EnvConfig,
    device: torch.device,
    env_factory: EnvFactory | None,
    aloud: bool,
    before_each: Callable[[], None],
) -> Envs:
    """The environments as they are, without what is batched around them."""
    from environment import BATCHED  # all of these stand on this file
    from ppo_lab.adapters.atari import is_atari, make_atari
    from ppo_lab.adapters.single import SingleEnvs
    from ppo_lab.adapters.vector import VectorEnvs
    from ppo_lab.adapters.workers import WorkerEnvs

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
        undo.pop_all()  # all went well: now they are closed with `made`
        return made


def _check_settings(settings: EnvConfig, batched: bool, env_factory: EnvFactory | None) -> None:
    """Raises ConfigError for settings that exclude each other."""
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
    """How one single environment of these settings is made. Raises ConfigError for an id that does not exist.

    Where `mask_from_info` is "auto" one is made to see whether there are masks. aloud: log what becomes of them.
    """
    from environment import BATCHED

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
    """Why a resumed run would not go on bit for bit in these environments; None if it would, as far as one can see."""
    from environment import BATCHED
    from ppo_lab.adapters.atari import is_atari
    from ppo_lab.adapters.probe import why_inexact as probe

    settings = config.env
    name = settings.id if env_factory is None else "env_factory"
    if env_factory is None and settings.id in BATCHED:
        return None
    try:
        if settings.vector:
            if is_atari(find_spec(settings.id, settings.allow_import, BATCHED)):
                return None  # its games follow from their seeds
            return f"the vector environment of {name} cannot tell its state, and its episodes have no seeds"
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
    """What of a single environment begins anew with every seed, so that each episode is the first; None: nothing."""
    from environment import BATCHED
    from ppo_lab.adapters.probe import rewound_by_seeds as probe

    settings = config.env
    batched = settings.vector or (env_factory is None and settings.id in BATCHED)
    if batched or not settings.seed_episodes or settings.new_each_episode:
        return None
    with suppress(Exception):  # what is wrong with it is said where it trains
        make = make_maker(settings, env_factory)
        return probe(lambda: make(0))
    return None


def check_spaces(observation_space: Space, action_space: Space, name: str) -> None:
    """Raises EnvError if the environment `name` has a space that there is no network or distribution for.

    Also if it shows an action mask that does not fit its actions.
    """
    for what, space, dtypes in (
        ("observation", observation_space, OBS_DTYPES),
        ("action", action_space, ACTION_DTYPES),
    ):
        problem = _problem(space, dtypes)
        if problem is not None:
            kinds = "Discrete, MultiDiscrete, MultiBinary, Box"
            advice = f"supported: {kinds} ({', '.join(dtypes)}), and Dict and Tuple of these"
            fit = _fitting_keys(space, dtypes)
            if what == "observation" and fit:  # such as a mission in words
                advice = f"leave it out with env.wrappers: [FilterObservation: {{filter_keys: [{', '.join(fit)}]}}]"
            text = one_line(space, 90)
            raise EnvError(f"{name}: {what} space {text} is not supported: {problem}; {advice}")
    mask = leaf_spaces(flatten_space(observation_space)).get(MASK_KEY)
    if mask is not None and mask.shape != (mask_size(action_space),):
        text = f"a mask of shape ({mask_size(action_space)},)" if mask_size(action_space) else "no mask"
        raise EnvError(
            f"{name}: {MASK_KEY!r} of the observation has shape {mask.shape}; {one_line(action_space, 90)} takes {text}"
        )


def _problem(space: Space, dtypes: tuple[str, ...]) -> str | None:
    """What no network or distribution takes in a space; None if there is nothing."""
    try:
        leaves = leaf_spaces(flatten_space(space))
    except EnvError as error:
        return str(error)
    for key, leaf in leaves.items():
        of = f"key {key!r}: " if key else ""
        if 0 in (leaf.shape or ()):
            return f"{of}it holds no number"
        if isinstance(leaf, Box) and str(leaf.dtype) not in dtypes:
            return f"{of}dtype {leaf.dtype}"
    return None


def _fitting_keys(space: Space, dtypes: tuple[str, ...]) -> list[str]:
    """The keys of a Dict space that have no problem."""
    entries = space.spaces.items() if isinstance(space, Dict) else ()
    return [
        key
        for key, inner in entries
        if isinstance(key, str) and key and "/" not in key and _problem(inner, dtypes) is None
    ]
