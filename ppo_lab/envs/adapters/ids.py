"""Make a Gymnasium environment from an id; raise an error of one clear line if that fails."""

from __future__ import annotations

import copy
import difflib
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from ppo_lab.envs.adapters.declared import as_declared
from ppo_lab.errors import ConfigError, EnvError, LabError, describe_error, one_line

PACKAGES = {  # environments that importing a module registers: start of the id -> (module, package)
    "ALE/": ("ale_py", "ale-py"),
    "MiniGrid-": ("minigrid", "minigrid"),
    "BabyAI-": ("minigrid", "minigrid"),
}
EXTRAS = {  # module prefix of Gymnasium's own environments -> the pip extra that installs their dependencies
    "gymnasium.envs.box2d": "box2d",
    "gymnasium.envs.mujoco": "mujoco",
    "gymnasium.envs.phys2d": "jax",
    "gymnasium.envs.tabular": "jax",
    "gymnasium.wrappers": "other",
}


def find_spec(env_id: str, allow_import: bool = False, ours: Iterable[str] = ()) -> EnvSpec:
    """Return Gymnasium's spec of an id. `ours`: further ids to suggest if the id is unknown.

    "module:Name-v0" imports the module first, which runs its code: only with allow_import. Modules in PACKAGES are
    imported automatically. Raises ConfigError with the nearest ids or with the package that is missing.
    """
    module, colon, name = env_id.rpartition(":")
    if colon and not allow_import:
        raise ConfigError(f"env.id: {env_id!r} would import {module!r}; set env.allow_import to true if you trust it")
    known, package = next((names for start, names in PACKAGES.items() if name.startswith(start)), (module, ""))
    if colon:
        _import(module, f"env.id: {env_id!r}", "")
    elif package and name not in gymnasium.registry:
        _import(known, f"env.id: {env_id!r}", package)
    if name in gymnasium.registry:
        return gymnasium.registry[name]
    near = difflib.get_close_matches(name, [*ours, *gymnasium.registry], n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(repr(one) for one in near)}?" if near else ""
    advice = "" if near else "; put the module of a package's environment in front: module:Name-v0"
    raise ConfigError(f"env.id: no environment {name!r} is registered{hint}{advice}")


def make_single(spec: EnvSpec, kwargs: Mapping[str, Any]) -> gymnasium.Env:
    """Make one environment with its time limit. Raises ConfigError for unknown kwargs, EnvError if making it fails."""
    with explained(spec.id, spec.entry_point):
        creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        check_kwargs(spec.id, creator, kwargs, also=("max_episode_steps",))
        options = as_declared(creator, copy.deepcopy(dict(kwargs)), f"env.kwargs: {spec.id}")
        return gymnasium.make(spec, disable_env_checker=True, **options)


def make_vector(spec: EnvSpec, num_envs: int, kwargs: Mapping[str, Any]) -> gymnasium.vector.VectorEnv:
    """Make the vector environment registered for an id. Raises ConfigError if it has none, and as `make_single`."""
    if spec.vector_entry_point is None:
        raise ConfigError(f"env.vector: {spec.id} has no vector environment; set env.vector to false")
    entry_point = spec.vector_entry_point
    with explained(spec.id, entry_point), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*AutoresetMode")  # VectorEnvs raises for what Gymnasium warns about
        creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
        check_kwargs(spec.id, creator, kwargs, taken=("num_envs",))
        options = as_declared(creator, copy.deepcopy(dict(kwargs)), f"env.kwargs: {spec.id}")
        return gymnasium.make_vec(spec, num_envs, vectorization_mode="vector_entry_point", **options)


def call_creator(env_id: str, creator: Callable[..., Any], kwargs: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Call creator(**given, **kwargs): kwargs come from the user, `given` does not. Raises as `make_single`."""
    with explained(env_id, creator):
        check_kwargs(env_id, creator, kwargs, taken=tuple(given))
        return creator(**given, **as_declared(creator, copy.deepcopy(dict(kwargs)), f"env.kwargs: {env_id}"))


def check_kwargs(
    env_id: str,
    creator: Any,
    kwargs: Mapping[str, Any],
    taken: tuple[str, ...] = (),
    also: tuple[str, ...] = (),
    where: str = "env.kwargs",
) -> None:
    """Raise ConfigError, listing the known ones, for a keyword that `creator` does not take or that is in `taken`."""
    try:
        parameters = inspect.signature(creator).parameters
    except (TypeError, ValueError):
        return  # written in C: its error says enough
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    names = {name for name, parameter in parameters.items() if parameter.kind not in (2, 4)}  # not *args, **kwargs
    known = sorted({*names, *also} - {*taken})
    for name in kwargs:
        if name in taken or (name not in known and not takes_all):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{where}: {env_id} takes no {name!r}{hint}; it takes: {', '.join(known) or 'nothing'}")


def _import(module: str, what: str, package: str) -> None:
    """Import a module that registers environments. Raises ConfigError if it is not installed, EnvError if it fails."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        install = f": pip install {package}" if package else ""
        raise ConfigError(f"{what} needs the module {error.name!r}, which is not installed{install}") from error
    except Exception as error:
        raise EnvError(f"{what}: importing {module!r} failed: {describe_error(error)}") from error


@contextmanager
def explained(env_id: str, entry_point: Any) -> Iterator[None]:
    """Convert any error of making an environment to one line, with the pip command for a missing package."""
    try:
        yield
    except LabError:
        raise
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        extra = next((extra for place, extra in EXTRAS.items() if str(entry_point).startswith(place)), None)
        install = f'pip install "gymnasium[{extra}]"' if extra else one_line(error)
        raise EnvError(f"{env_id} needs a package that is not installed: {install}") from error
    except Exception as error:
        raise EnvError(f"cannot make {env_id}: {describe_error(error)}") from error
