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
import hashlib
import io
import json
import weakref
from collections import deque
from typing import Any

import gymnasium

from ppo_lab.envs.adapters.attributes import Found, entries, holds_more, look, objects, path_of
from ppo_lab.envs.adapters.plain_data import CHANGEABLE, contents, decode, encode, fill, put, refill, set_generator
from ppo_lab.errors import EnvError

HOOKS = (("state_dict", "load_state_dict"), ("get_state", "set_state"))
LOADING = {load for _, load in HOOKS}
LONG = 400  # characters of what did not change; of more only a hash is kept, to compare
# Objects written in C that are known to answer otherwise after an earlier episode: contacts and the order of bodies in
# memory decide in which order a solver adds numbers. Kind -> what to call it.
WORLDS = {"b2World": "its Box2D world", "pymunk.space.Space": "its pymunk space"}


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
        hooks: list[str | None] = []
        for layer, save, _ in hooks_of(self._env):
            try:
                hooks.append(json.dumps(encode(getattr(layer, save)(), limit=None)))
            except Exception:  # it is meant for something else; its attributes are looked at
                hooks.append(None)
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
        loaded = [(*layer, state) for layer, state in zip(layers, saved["hooks"], strict=True) if state is not None]
        for layer, _, load, state in loaded:
            getattr(layer, load)(decode(json.loads(state)))
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
        holder = one.owner if one is not None else dict(objects(self._env)).get(owner)
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


def _changeable(one: Found) -> bool:
    return issubclass(type(one.value), CHANGEABLE) or holds_more(one.value)


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
    for path, holder in objects(env):
        for key, value in entries(holder):
            kind = type(value)
            name = WORLDS.get(kind.__name__) or WORLDS.get(f"{getattr(kind, '__module__', '')}.{kind.__name__}")
            iterates = hasattr(kind, "__next__") and not issubclass(kind, (io.IOBase, *weakref.ProxyTypes))
            if name is None and iterates:
                name = f"the iterator {path_of(path, holder, key)}"
            if name is not None:
                kept[id(value)] = name
    return kept
