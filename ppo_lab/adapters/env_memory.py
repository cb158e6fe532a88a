"""What an environment object remembers from one episode to the next, so that a new object can take its place.

An episode's seed and actions lead a new object back into the episode. What outlives episodes they cannot lead back to:
the counter of a curriculum, running statistics in a wrapper, a pointer into data. That is brought along

- by the environment itself, or a wrapper of it, where it has `state_dict()` and `load_state_dict(state)`, or
  `get_state()` and `set_state(state)`: called in the middle of an episode, and after that episode was replayed;
- else attribute by attribute: those that hold plain data (numbers, text, containers and arrays of them, random number
  generators) and have changed since the object's first reset. What never changed, such as a port, is left alone.

An attribute that holds something else is known by its kind: another kind cannot be put back, and the run says so.
Neither sees what no attribute shows, such as a physics world written in C: `probe` looks for that.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import io
import json
import weakref
from collections import deque
from collections.abc import Iterator
from enum import Enum
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import gymnasium

from ppo_lab.adapters.plain_data import CHANGEABLE, contents, decode, encode, fill, put, refill, set_generator
from ppo_lab.errors import EnvError

HOOKS = (("state_dict", "load_state_dict"), ("get_state", "set_state"))
MOST = 5000  # attributes and entries that are looked at
DEEPEST = 12  # levels of objects within objects
LONG = 400  # characters of what did not change; of more only a hash is kept, to compare
LEFT_ALONE = {  # packages whose objects are not the environment's own: settings, devices, handles
    "builtins", "threading", "logging", "multiprocessing", "subprocess", "socket", "asyncio", "concurrent", "torch",
    "pygame", "matplotlib", "PIL", "weakref", "functools", "itertools", "_io", "types", "typing", "pathlib", "ctypes",
    "numpy", "enum", "abc",
}  # fmt: skip
# Objects written in C that are known to answer otherwise after an earlier episode: contacts and the order of bodies in
# memory decide in which order a solver adds numbers. Kind -> what to call it.
WORLDS = {"b2World": "its Box2D world", "pymunk.space.Space": "its pymunk space"}


class Found(NamedTuple):
    """One attribute or entry."""

    owner: Any  # object, class or container that it belongs to
    key: Any
    value: Any  # as it is there
    text: str  # JSON of what it holds, or of its kind
    plain: bool  # it is plain data


def hooks_of(env: gymnasium.Env) -> list[tuple[Any, str, str]]:
    """The layers of an environment that save themselves, the outermost first: (layer, saving, loading method)."""
    found: list[tuple[Any, str, str]] = []
    layer: gymnasium.Env | None = env
    while layer is not None:
        for save, load in HOOKS:
            if _takes(layer, save, 0) and _takes(layer, load, 1):
                found.append((layer, save, load))
                break
        layer = layer.env if isinstance(layer, gymnasium.Wrapper) else None
    return found


def _takes(layer: Any, name: str, count: int) -> bool:
    """The layer has a method of this name that takes so many arguments: MuJoCo's set_state(qpos, qvel) takes two."""
    method = getattr(type(layer), name, None)
    if not callable(method):
        return False
    code = getattr(method, "__code__", None)
    if code is None:
        return True
    needed = code.co_argcount - len(getattr(method, "__defaults__", None) or ())
    return bool(needed <= 1 + count <= code.co_argcount)


class EnvMemory:
    """Of one environment object, looked at for the first time right after its first reset."""

    def __init__(self, env: gymnasium.Env) -> None:
        self._env = env
        first = look(env)
        self._first = {path: one.text for path, one in first.items()}
        self._held = {
            path: one.value for path, one in first.items() if _changeable(one)
        }  # alive, so none takes their id

    def save(self) -> dict[str, Any]:
        """What there is now: {"hooks": [...], "changed": {path: text}, "kept": {path: text}, "replaced": [path, ...]}.

        changed: since the first reset. replaced: containers and objects that are others than then.
        """
        hooks = []
        for layer, save, _ in hooks_of(self._env):
            try:
                hooks.append(encode(getattr(layer, save)(), limit=None))
            except Exception:  # it is meant for something else; its attributes are looked at
                hooks.append({"$none": None})
        now = look(self._env)
        changed = {path: one.text for path, one in now.items() if self._first.get(path) != one.text}
        kept = {path: _shortened(one.text) for path, one in now.items() if path not in changed}
        replaced = [path for path, one in now.items() if _changeable(one) and one.value is not self._held.get(path)]
        return {"hooks": hooks, "changed": changed, "kept": kept, "replaced": replaced}

    def load(self, saved: dict[str, Any]) -> list[str]:
        """Put back what is not as it was saved, after the episode was replayed. Returns what had to be.

        What has never changed, neither in the object that was saved nor in this one, may differ: it is left alone.
        Raises EnvError, naming it, for what cannot be put back.
        """
        differing = self._differing(saved)
        for path in differing:
            if path in saved["changed"]:
                self._put(path, saved["changed"][path], saved["replaced"])
        layers = hooks_of(self._env)
        if len(layers) != len(saved["hooks"]):
            raise EnvError(f"{len(saved['hooks'])} of its layers had saved themselves, {len(layers)} can be loaded")
        loaded = [
            (*layer, state) for layer, state in zip(layers, saved["hooks"], strict=True) if state != {"$none": None}
        ]
        for layer, _, load, state in loaded:
            getattr(layer, load)(decode(state))
        if differing and (left := self._differing(saved)):
            raise EnvError(f"its attribute {left[0]} outlives episodes and cannot be put back")
        return [*differing, *(load for _, _, load, _ in loaded)]

    def _differing(self, saved: dict[str, Any]) -> list[str]:
        """The paths that are not as they were saved."""
        now = {path: one.text for path, one in look(self._env).items()}
        moved = {path for path, text in now.items() if self._first.get(path) != text}
        changed, kept = saved["changed"], saved["kept"]
        found = [path for path, text in changed.items() if now.get(path) != text]
        found += [path for path, text in kept.items() if path in moved and _shortened(now[path]) != text]
        gone = [path for path in self._first if path in now and path not in changed and path not in kept]
        return found + gone

    def _put(self, path: str, text: str, replaced: list[str]) -> None:
        """One attribute. Quietly nothing where that cannot be: it is looked at again."""
        now, encoded = look(self._env), json.loads(text)
        owner, dot, key = path.rpartition(".")
        one = now.get(path)
        holder = one.owner if one is not None else dict(_objects(self._env)).get(owner)
        try:
            if one is not None and (set_generator(one.value, encoded) or (
                path not in replaced and fill(one.value, decode(encoded, one.value))
            )):  # fmt: skip
                return
            if holder is None or (one is None and not (dot and key.isidentifier())):
                return
            if owner in replaced and owner in now and not isinstance(holder, type):
                holder = copy.copy(holder)  # it may be shared, as the default of a dataclass is
                put(now[owner].owner, now[owner].key, holder)
            put(holder, key if one is None else one.key, decode(encoded, None if one is None else one.value))
        except Exception:  # of foreign code, or because it is no plain data
            return


def look(env: gymnasium.Env) -> dict[str, Found]:
    """Everything that can be reached from an environment by attributes and entries: {path: found}."""
    found: dict[str, Found] = {}
    seen: dict[int, str] = {}  # containers: where they were found first
    for path, holder in _objects(env):
        for key, value in _entries(holder):
            place = _path(path, holder, key)
            found[place] = _found(holder, key, value, place, seen)
            if len(found) >= MOST:
                return found
    return found


def _found(holder: Any, key: Any, value: Any, path: str, seen: dict[int, str]) -> Found:
    try:
        encoded = encode(value)
    except Exception:  # no plain data, a list that holds itself, a dead proxy, ...
        return Found(holder, key, value, json.dumps({"$kind": _kind(value)}), False)
    if isinstance(value, CHANGEABLE):
        first = seen.setdefault(id(value), path)
        if first != path:  # another name of the same container: it goes where that goes
            return Found(holder, key, value, json.dumps({"$same": first}), False)
        _mark(value, path, seen)
    return Found(holder, key, value, json.dumps(encoded), True)


def _mark(value: Any, path: str, seen: dict[int, str]) -> None:
    """The containers in a container: a second name of one of them is noticed."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | deque) else ()
    for i, one in enumerate(inner if len(inner) <= MOST else ()):
        if isinstance(one, CHANGEABLE) and id(one) not in seen:
            seen[id(one)] = f"{path}[{i}]"
            _mark(one, f"{path}[{i}]", seen)


def _kind(value: Any) -> str:
    """What a value that is no plain data is: the name of its class, of a function, what a partial calls."""
    try:
        return _kind_of(value)
    except Exception:  # a proxy of something that is gone
        return "unknown"


def _kind_of(value: Any) -> str:
    if isinstance(value, functools.partial):
        return f"partial of {_kind(value.func)} {len(value.args)} {sorted(value.keywords)}"
    if isinstance(value, FunctionType | MethodType | type):
        return f"{value.__module__}.{value.__qualname__}"
    kind = type(value)
    size = f" of {len(value)}" if isinstance(value, list | tuple | dict | set | deque) else ""
    return f"{getattr(kind, '__module__', '')}.{kind.__qualname__}{size}"


def _changeable(one: Found) -> bool:
    return issubclass(type(one.value), CHANGEABLE) or _holds_more(one.value)


def _shortened(text: str) -> str:
    return text if len(text) <= LONG else hashlib.sha256(text.encode()).hexdigest()


class Snapshot:
    """What can be reached from an environment that was just made and may be shared: with the run, with others.

    Trying things out in it must not count: `put_back` makes everything as it was, with the very same objects.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        self._found = [one for one in look(env).values() if one.plain]
        self._contents: dict[int, tuple[Any, Any]] = {}  # by id: a container, and what it holds
        for one in self._found:
            self._keep(one.value)

    def _keep(self, value: Any) -> None:
        held = contents(value)
        if held is None or id(value) in self._contents:
            return
        self._contents[id(value)] = value, held
        for one in value.values() if isinstance(value, dict) else held if isinstance(held, list) else ():
            self._keep(one)

    def put_back(self) -> None:
        """Containers hold what they held, attributes are what they were, generators where they stood."""
        for value, held in self._contents.values():
            with contextlib.suppress(Exception):  # of foreign code
                refill(value, held)
        for one in self._found:
            with contextlib.suppress(Exception):  # it is closed now, or cannot be written
                set_generator(one.value, json.loads(one.text))
                if _current(one) is not one.value:
                    put(one.owner, one.key, one.value)


def _current(one: Found) -> Any:
    if isinstance(one.owner, dict | list | tuple | deque):
        return one.owner[one.key]
    return getattr(one.owner, one.key)


def worlds(env: gymnasium.Env) -> dict[int, str]:
    """What cannot be looked into and may remember: objects in WORLDS, and iterators. {id: what to call it}."""
    kept = {}
    for path, holder in _objects(env):
        for key, value in _entries(holder):
            kind = type(value)
            name = WORLDS.get(kind.__name__) or WORLDS.get(f"{getattr(kind, '__module__', '')}.{kind.__name__}")
            iterates = hasattr(kind, "__next__") and not issubclass(kind, (io.IOBase, *weakref.ProxyTypes))
            if name is None and iterates:
                name = f"the iterator {_path(path, holder, key)}"
            if name is not None:
                kept[id(value)] = name
    return kept


def _objects(env: gymnasium.Env) -> Iterator[tuple[str, Any]]:
    """The environment and what it consists of: objects, their classes, containers that hold objects."""
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
        for key, value in _entries(holder):
            if _holds_more(value):
                waiting.append((_path(path, holder, key), value, depth + 1))


def _holds_more(value: Any) -> bool:
    """An object or a container that is not plain data itself, and is the environment's own."""
    kind = type(value)  # not isinstance, which asks a proxy for the class of what may be gone
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
    """A class of the environment's author: no library's, whose class attributes are settings; no Enum."""
    libraries = LEFT_ALONE | {"gymnasium", "collections", "dataclasses", "random"}
    return _package(kind) not in libraries and not issubclass(kind, Enum)


def _package(kind: type) -> str:
    return str(getattr(kind, "__module__", "builtins")).partition(".")[0]  # types written in C may have none


def _entries(holder: Any) -> list[tuple[Any, Any]]:
    """(key, value) of an object's or a class's attributes, or of a container's entries."""
    try:
        if isinstance(holder, dict):
            return [(key, value) for key, value in holder.items() if isinstance(key, str | int)]
        if isinstance(holder, list | tuple | deque):
            return list(enumerate(holder))
        if isinstance(holder, type):
            skipped = staticmethod | classmethod | property | FunctionType
            own = [(key, value) for key, value in vars(holder).items() if not key.startswith("__")]
            return [(key, value) for key, value in own if not isinstance(value, skipped) and key != "_abc_impl"]
        return [*vars(holder).items(), *_slots(holder)] if hasattr(holder, "__dict__") else _slots(holder)
    except Exception:  # a proxy of something that is gone
        return []


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


def _path(path: str, holder: Any, key: Any) -> str:
    return f"{path}[{key!r}]" if isinstance(holder, dict | list | tuple | deque) else f"{path}.{key}"
