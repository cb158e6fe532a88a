"""Walk the attributes and entries reachable from an environment object and encode those that hold plain data."""

from __future__ import annotations

import functools
import json
from collections import deque
from collections.abc import Iterator
from enum import Enum
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import gymnasium

from ppo_lab.envs.adapters.plain_data import CHANGEABLE, encode

MOST = 5000  # attributes and entries that are inspected
DEEPEST = 12  # levels of objects within objects
LEFT_ALONE = {  # packages whose objects are not the environment's own: settings, devices, handles
    "builtins", "threading", "logging", "multiprocessing", "subprocess", "socket", "asyncio", "concurrent", "torch",
    "pygame", "matplotlib", "PIL", "weakref", "functools", "itertools", "_io", "types", "typing", "pathlib", "ctypes",
    "numpy", "enum", "abc",
}  # fmt: skip


class Found(NamedTuple):
    """One attribute or entry."""

    owner: Any  # object, class or container that it belongs to
    key: Any
    value: Any  # the live object
    text: str  # JSON of its contents, or of its kind if it is not plain data
    plain: bool  # it is plain data


def look(env: gymnasium.Env) -> dict[str, Found]:
    """Return all attributes and entries reachable from an environment, at most MOST: {path: found}."""
    found: dict[str, Found] = {}
    seen: dict[int, str] = {}  # containers: where they were found first
    for path, holder in objects(env):
        for key, value in entries(holder):
            place = path_of(path, holder, key)
            found[place] = _found(holder, key, value, place, seen)
            if len(found) >= MOST:
                return found
    return found


def _found(holder: Any, key: Any, value: Any, path: str, seen: dict[int, str]) -> Found:
    try:
        encoded = encode(value)
    except Exception:  # not plain data, a list that contains itself, a dead proxy, ...
        return Found(holder, key, value, json.dumps({"$kind": _kind(value)}), False)
    if isinstance(value, CHANGEABLE):
        first = seen.setdefault(id(value), path)
        if first != path:  # an alias: it is saved and restored under the first path
            return Found(holder, key, value, json.dumps({"$same": first}), False)
        _mark(value, path, seen)
    return Found(holder, key, value, json.dumps(encoded), True)


def _mark(value: Any, path: str, seen: dict[int, str]) -> None:
    """Record the containers inside a container, so that an alias of one of them is recognized."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | deque) else ()
    for i, one in enumerate(inner if len(inner) <= MOST else ()):
        if isinstance(one, CHANGEABLE) and id(one) not in seen:
            seen[id(one)] = f"{path}[{i}]"
            _mark(one, f"{path}[{i}]", seen)


def _kind(value: Any) -> str:
    """Name the kind of a value that is not plain data: its class, the function, or what a partial calls."""
    try:
        return _kind_of(value)
    except Exception:  # a proxy of a deleted object
        return "unknown"


def _kind_of(value: Any) -> str:
    if isinstance(value, functools.partial):
        return f"partial of {_kind(value.func)} {len(value.args)} {sorted(value.keywords)}"
    if isinstance(value, FunctionType | MethodType | type):
        return f"{value.__module__}.{value.__qualname__}"
    kind = type(value)
    size = f" of {len(value)}" if isinstance(value, list | tuple | dict | set | deque) else ""
    return f"{getattr(kind, '__module__', '')}.{kind.__qualname__}{size}"


def objects(env: gymnasium.Env) -> Iterator[tuple[str, Any]]:
    """Yield (path, holder) for the environment and its parts: objects, their classes, containers of objects."""
    waiting: deque[tuple[str, Any, int]] = deque([("env", env, 0)])
    seen: set[int] = set()
    while waiting and len(seen) <= MOST:
        path, holder, depth = waiting.popleft()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        yield path, holder
        if depth == DEEPEST:
            continue
        if not isinstance(holder, dict | list | tuple | deque | type):
            waiting += [(f"class {c.__name__}", c, depth + 1) for c in type(holder).__mro__ if _own(c)]
        for key, value in entries(holder):
            if holds_more(value):
                waiting.append((path_of(path, holder, key), value, depth + 1))


def holds_more(value: Any) -> bool:
    """Return whether this is an object of the environment's author, or a container that is not plain data."""
    kind = type(value)  # not isinstance, which asks a proxy for the class of an object that may be deleted
    if issubclass(kind, dict | list | tuple | deque):
        try:
            encode(value)
        except Exception:
            return True
        return False
    others = ModuleType | type | FunctionType | MethodType | Enum | gymnasium.Space
    if issubclass(kind, others | gymnasium.envs.registration.EnvSpec) or _package(kind) in LEFT_ALONE:
        return False
    return hasattr(value, "__dict__") or hasattr(kind, "__slots__")


def _own(kind: type) -> bool:
    """Return whether the environment's author wrote this class: not a library (its class attributes are settings).

    An Enum does not count.
    """
    libraries = LEFT_ALONE | {"gymnasium", "collections", "dataclasses", "random"}
    return _package(kind) not in libraries and not issubclass(kind, Enum)


def _package(kind: type) -> str:
    return str(getattr(kind, "__module__", "builtins")).partition(".")[0]  # types written in C may have none


def entries(holder: Any) -> list[tuple[Any, Any]]:
    """List (key, value) of an object's or a class's attributes, or of a container's entries."""
    try:
        if isinstance(holder, dict):
            return [(key, value) for key, value in holder.items() if _names(key)]
        if isinstance(holder, list | tuple | deque):
            return list(enumerate(holder))
        if isinstance(holder, type):
            skipped = staticmethod | classmethod | property | FunctionType
            own = [(key, value) for key, value in vars(holder).items() if not key.startswith("__")]
            return [(key, value) for key, value in own if not isinstance(value, skipped) and key != "_abc_impl"]
        return [*vars(holder).items(), *_slots(holder)] if hasattr(holder, "__dict__") else _slots(holder)
    except Exception:  # a proxy of a deleted object
        return []


def _names(key: Any) -> bool:
    """Return whether a key has the same repr in every process."""
    return isinstance(key, str | int | float) or (type(key) is tuple and all(map(_names, key)))


def _slots(holder: Any) -> list[tuple[str, Any]]:
    found = []
    for kind in type(holder).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            mangled = name.startswith("__") and not name.endswith("__")
            key = f"_{kind.__name__.lstrip('_')}{name}" if mangled else name
            if name not in ("__dict__", "__weakref__") and hasattr(holder, key):
                found.append((key, getattr(holder, key)))
    return found


def path_of(path: str, holder: Any, key: Any) -> str:
    """Return the path of an attribute or entry of a holder: "env.level", "env.parts['a']"."""
    return f"{path}[{key!r}]" if isinstance(holder, dict | list | tuple | deque) else f"{path}.{key}"
