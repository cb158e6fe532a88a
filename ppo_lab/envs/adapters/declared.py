"""Convert keyword values from YAML to the types that a signature declares: YAML has lists, Python may want a tuple."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import numpy as np

from ppo_lab.errors import ConfigError

LIKE_A_TUPLE = re.compile(r"\s*\(.*,.*\)\s*")
MAPPINGS = (dict, Mapping)
ANYTHING = {"any", "object", "sequence", "iterable", "collection", "arraylike"}
WORDS: dict[type, set[str]] = {  # type -> words that allow it in an annotation that cannot be resolved
    list: {"list", *ANYTHING},
    tuple: {"tuple", *ANYTHING},
    str: {"str", *ANYTHING},
    np.ndarray: {"ndarray", *ANYTHING},
}


def as_declared(creator: Any, kwargs: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Convert lists to tuples where `creator` is annotated to take a tuple and not a list, or defaults to a tuple.

    A list for an annotated array becomes an array, and a number for an annotated NumPy float one of those; every other
    value is unchanged. Raises ConfigError, prefixed with `what`, for a string that looks like a tuple where a tuple is
    expected.
    """
    declared = _declared(creator, set(kwargs))
    return {name: _fit(value, declared[name], f"{what}: {name}") if name in declared else value
            for name, value in kwargs.items()}  # fmt: skip


def _declared(creator: Any, names: set[str]) -> dict[str, Any]:
    """Return the declared type of each named parameter, or the annotation's text if it cannot be resolved.

    Where an __init__ takes **kwargs, the parameters of the base classes' __init__ count too.
    """
    found: dict[str, Any] = {}
    above = (
        [vars(cls)["__init__"] for cls in creator.__mro__ if "__init__" in vars(cls)]
        if isinstance(creator, type)
        else []
    )
    for function in above or [creator]:
        function = inspect.unwrap(getattr(function, "func", function))  # of a functools.partial
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):
            break  # written in C
        for name in names & parameters.keys() - found.keys():
            kind = _kind(function, parameters[name])
            if kind is not None:
                found[name] = kind
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return found


def _kind(function: Any, parameter: inspect.Parameter) -> Any:
    """Return the annotated type of a parameter; tuple for an unannotated one that defaults to a tuple; else None."""
    kind = parameter.annotation
    if kind is parameter.empty:
        return tuple if type(parameter.default) is tuple else None
    holder = types.SimpleNamespace(
        __annotations__={"it": kind}
    )  # resolved one by one: the annotation of another parameter may exist for type checkers only
    try:
        return typing.get_type_hints(holder, globalns=getattr(function, "__globals__", {}), include_extras=True)["it"]
    except Exception:  # resolving a name in a third party's module can raise anything
        return kind


def _fit(value: Any, kind: Any, what: str) -> Any:
    """Convert a value to the declared kind."""
    if isinstance(value, str) and LIKE_A_TUPLE.fullmatch(value) and _takes(kind, tuple) and not _takes(kind, str):
        raise ConfigError(f"{what} is the string {value!r}; write a tuple as a list or as !tuple [84, 84, 1]")
    if isinstance(value, (list, tuple)):
        return _fit_list(value, kind, what)
    if isinstance(value, (int, float)) and _wants_numpy(kind):
        return _in_float32(np.asarray(value))[()]
    if isinstance(value, dict):
        inner = next((get_args(one) for one in _options(kind) if get_origin(one) in MAPPINGS), ())
        return {key: _fit(item, inner[1], what) for key, item in value.items()} if inner else value
    return value


def _fit_list(value: list[Any] | tuple[Any, ...], kind: Any, what: str) -> Any:
    """Convert a list or a tuple and its items; a list is kept where lists are accepted, a tuple always."""
    becomes = type(value)
    if isinstance(value, list) and not _takes(kind, list):
        if _takes(kind, tuple):
            becomes = tuple
        elif _takes(kind, np.ndarray):
            return _in_float32(np.asarray(value)) if _wants_numpy(kind) else np.asarray(value)
    for option in _options(kind):
        origin, inner = get_origin(option), get_args(option)
        of_each = inner[:1] * len(value) if origin is not tuple or inner[1:] == (...,) else inner
        if inner and _is_a(becomes, origin) and len(of_each) == len(value):
            return becomes(_fit(item, each, what) for item, each in zip(value, of_each, strict=True))
    return becomes(value)


def _wants_numpy(kind: Any) -> bool:
    """Return whether numbers must be NumPy's, which YAML cannot express, such as the bounds of RescaleObservation."""
    return _takes(kind, np.floating) and not _takes(kind, float)


def _in_float32(array: np.ndarray) -> np.ndarray:
    """Convert numbers to float32, the precision of most spaces, if it is exact: Gymnasium warns about float64."""
    short = array.astype(np.float32)
    return short if array.dtype != np.bool_ and np.array_equal(short, array) else array


def _options(kind: Any) -> list[Any]:
    """List the members of a union; a single kind gives a list of one."""
    kind = getattr(kind, "__value__", kind)  # of `type X = ...`
    if get_origin(kind) is Annotated:
        return _options(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [option for one in get_args(kind) for option in _options(one)]
    return [kind]


def _takes(kind: Any, wanted: type) -> bool:
    """Return whether the declared kind accepts type `wanted`; judged by its words if the kind is a string."""
    if isinstance(kind, str):
        return bool(set(re.findall(r"\w+", kind.lower())) & WORDS.get(wanted, ANYTHING))
    return any(option is Any or isinstance(option, TypeVar) or _is_a(wanted, get_origin(option) or option)
               for option in _options(kind))  # fmt: skip


def _is_a(wanted: type, origin: Any) -> bool:
    try:
        return issubclass(wanted, origin)
    except TypeError:  # not a class, or one without issubclass support
        return False
