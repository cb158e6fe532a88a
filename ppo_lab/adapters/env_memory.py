"""What an environment object remembers from one episode to the next, so that a new object can take its place.

An episode's seed and actions lead a new object back into the episode. What outlives episodes they cannot lead back to:
the counter of a curriculum, running statistics in a wrapper, a pointer into data. That is brought along

- by the environment itself, or a wrapper of it, where it has `state_dict()` and `load_state_dict(state)`, or
  `get_state()` and `set_state(state)`: called in the middle of an episode, and after that episode was replayed;
- else attribute by attribute: those that hold plain data (numbers, text, containers and arrays of them, random number
  generators) and have changed since the object's first reset. What never changed, such as a port, is left alone.

Neither sees what no attribute shows, such as a physics world written in C: `probe` looks for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import gymnasium

from ppo_lab.adapters.plain_data import OpaqueError, decode, encode, put
from ppo_lab.errors import EnvError

HOOKS = (("state_dict", "load_state_dict"), ("get_state", "set_state"))
MOST = 5000  # attributes and entries that are looked at
DEEPEST = 12  # levels of objects within objects
LEFT_ALONE = {  # packages whose objects are not the environment's own: settings, devices, handles
    "builtins", "threading", "logging", "multiprocessing", "subprocess", "socket", "asyncio", "concurrent", "torch",
    "pygame", "matplotlib", "PIL", "weakref", "functools", "itertools", "_io", "types", "typing", "pathlib", "ctypes",
}  # fmt: skip

# Objects written in C that are known to answer otherwise after an earlier episode: contacts and the order of bodies in
# memory decide in which order a solver adds numbers. Kind -> what to call it.
WORLDS = {"b2World": "its Box2D world", "pymunk.space.Space": "its pymunk space"}


class Found(NamedTuple):
    """One attribute or entry with plain data."""

    owner: Any  # object, class, dict or list that it belongs to
    key: Any
    value: Any  # as it is there
    encoded: Any


def hooks_of(env: gymnasium.Env) -> list[tuple[Any, str, str]]:
    """The layers of an environment that save themselves, the outermost first: (layer, saving, loading method)."""
    found: list[tuple[Any, str, str]] = []
    layer: gymnasium.Env | None = env
    while layer is not None:
        for save, load in HOOKS:
            if all(callable(getattr(type(layer), name, None)) for name in (save, load)) and _takes_one(layer, load):
                found.append((layer, save, load))
                break
        layer = layer.env if isinstance(layer, gymnasium.Wrapper) else None
    return found


def _takes_one(layer: Any, name: str) -> bool:
    """MuJoCo's set_state(qpos, qvel) is none of these."""
    code = getattr(getattr(type(layer), name), "__code__", None)
    if code is None:
        return True
    needed = code.co_argcount - len(getattr(type(layer), name).__defaults__ or ())
    return bool(needed <= 2 <= code.co_argcount)


class EnvMemory:
    """Of one environment object, looked at for the first time right after its first reset."""

    def __init__(self, env: gymnasium.Env) -> None:
        self._env = env
        self._first = {path: found.encoded for path, found in look(env).items()}

    def save(self) -> dict[str, Any]:
        """{"hooks": [state, ...], "changed": {path: value}, "kept": {path: value}}: since the first reset.

        Raises EnvError if a hook gives something that is no plain data.
        """
        hooks = []
        for layer, save, _ in hooks_of(self._env):
            try:
                hooks.append(encode(getattr(layer, save)(), limit=None))
            except OpaqueError as error:
                name = f"{type(layer).__name__}.{save}()"
                raise EnvError(f"{name} holds {error}, which a checkpoint cannot: give numbers, text, arrays") from None
        now = {path: one.encoded for path, one in look(self._env).items()}
        changed = {path: value for path, value in now.items() if self._first.get(path) != value}
        return {"hooks": hooks, "changed": changed, "kept": {path: now[path] for path in now.keys() - changed.keys()}}

    def load(self, saved: dict[str, Any]) -> list[str]:
        """Put back what is not as it was saved, after the episode was replayed. Returns what had to be.

        What has never changed, neither in the object that was saved nor in this one, may differ: it is left alone.
        Raises EnvError, naming it, for what cannot be put back.
        """
        now = {path: one.encoded for path, one in look(self._env).items()}
        moved = {path for path, value in now.items() if self._first.get(path) != value}
        differing = [path for path, value in saved["changed"].items() if now.get(path) != value]
        differing += [path for path, value in saved["kept"].items() if path in moved and now[path] != value]
        wanted = {**saved["kept"], **saved["changed"]}
        for path in differing:
            self._put(path, wanted[path])
        layers = hooks_of(self._env)
        if len(layers) != len(saved["hooks"]):
            raise EnvError(f"{len(saved['hooks'])} of its layers had saved themselves, {len(layers)} can be loaded")
        for (layer, _, load), state in zip(layers, saved["hooks"], strict=True):
            getattr(layer, load)(decode(state))
        found = {} if layers else look(self._env)  # the loading methods have the last word
        for path in () if layers else differing:
            if path not in found or found[path].encoded != wanted[path]:
                raise EnvError(f"its attribute {path} outlives episodes and cannot be put back")
        return [*differing, *(load for _, _, load in layers)]

    def _put(self, path: str, encoded: Any) -> None:
        now = look(self._env)
        if path in now:
            put(now[path].owner, now[path].key, now[path].value, encoded)
            return
        owner, _, key = path.rpartition(".")
        holder = dict(_objects(self._env)).get(owner)
        if holder is not None and key.isidentifier():
            put(holder, key, None, encoded)


def look(env: gymnasium.Env) -> dict[str, Found]:
    """Every attribute with plain data that can be reached from an environment: {path: found}."""
    found: dict[str, Found] = {}
    for path, holder in _objects(env):
        for key, value in _entries(holder):
            try:
                found[_path(path, holder, key)] = Found(holder, key, value, encode(value))
            except (OpaqueError, RecursionError):  # the latter: a list that holds itself
                continue
            if len(found) >= MOST:
                return found
    return found


def class_memory(env: gymnasium.Env) -> list[Found]:
    """What the classes of an environment and its wrappers hold: shared by all objects, here and in a probe."""
    return [one for one in look(env).values() if isinstance(one.owner, type)]


def put_back(shared: list[Found]) -> None:
    """What classes remember, as it was: it is the run's too, and trying things out does not count."""
    for one in shared:
        put(one.owner, one.key, getattr(one.owner, one.key, None), one.encoded)


def worlds(env: gymnasium.Env) -> dict[int, str]:
    """The objects of an environment that are in WORLDS: {id: what to call it}."""
    kept = {}
    for _, holder in _objects(env):
        for _, value in _entries(holder):
            kind = type(value)
            name = WORLDS.get(kind.__name__) or WORLDS.get(f"{getattr(kind, '__module__', '')}.{kind.__name__}")
            if name is not None:
                kept[id(value)] = name
    return kept


def _objects(env: gymnasium.Env) -> Iterator[tuple[str, Any]]:
    """The environment and what it consists of: objects, their classes, containers that hold objects."""
    waiting: list[tuple[str, Any, int]] = [("env", env, 0)]
    seen: set[int] = set()
    while waiting:
        path, holder, depth = waiting.pop(0)
        if id(holder) in seen or len(seen) > MOST:
            continue
        seen.add(id(holder))
        yield path, holder
        if isinstance(holder, type) or depth == DEEPEST:
            continue
        if not isinstance(holder, dict | list | tuple):
            waiting += [(f"class {c.__name__}", c, depth + 1) for c in type(holder).__mro__ if _own(c)]
        for key, value in _entries(holder):
            if _holds_more(value):
                waiting.append((_path(path, holder, key), value, depth + 1))


def _holds_more(value: Any) -> bool:
    """An object or a container that is not plain data itself, and is the environment's own."""
    if isinstance(value, dict | list | tuple):
        try:
            encode(value)
        except (OpaqueError, RecursionError):
            return True
        return False
    other = ModuleType | type | FunctionType | MethodType | gymnasium.Space | gymnasium.envs.registration.EnvSpec
    if isinstance(value, other) or _package(type(value)) in LEFT_ALONE:
        return False
    return hasattr(value, "__dict__") or hasattr(type(value), "__slots__")


def _own(kind: type) -> bool:
    """A class of the environment's author: no library's, whose class attributes are settings."""
    libraries = LEFT_ALONE | {"gymnasium", "numpy", "abc", "enum", "collections", "dataclasses", "random"}
    return _package(kind) not in libraries


def _package(kind: type) -> str:
    return str(getattr(kind, "__module__", "builtins")).partition(".")[0]  # types written in C may have none


def _entries(holder: Any) -> Iterator[tuple[Any, Any]]:
    """(key, value) of an object's or a class's attributes, or of a container's entries."""
    if isinstance(holder, dict):
        yield from ((key, value) for key, value in list(holder.items()) if isinstance(key, str | int))
    elif isinstance(holder, list | tuple):
        yield from enumerate(holder)
    elif isinstance(holder, type):
        yield from ((key, value) for key, value in list(vars(holder).items()) if not key.startswith("__"))
    else:
        yield from list(getattr(holder, "__dict__", {}).items())
        for kind in type(holder).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for key in (slots,) if isinstance(slots, str) else slots:
                if key not in ("__dict__", "__weakref__") and hasattr(holder, key):
                    yield key, getattr(holder, key)


def _path(path: str, holder: Any, key: Any) -> str:
    return f"{path}[{key!r}]" if isinstance(holder, dict | list | tuple) else f"{path}.{key}"
