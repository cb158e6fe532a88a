"""Save and restore the state that an environment object carries across episodes, so that a new object can replace it.

Replaying an episode's seed and actions restores the state within the episode. It cannot restore state that outlives
episodes: the counter of a curriculum, running statistics in a wrapper, a pointer into data. That is saved and restored

- by the environment or one of its wrappers, if it has `state_dict()` and `load_state_dict(state)`, or `get_state()`
  and `set_state(state)`: called in the middle of an episode, and after the replay of that episode;
- else attribute by attribute: those that hold plain data (numbers, text, containers and arrays of these, random number
  generators) and have changed since the object's first reset. Attributes that never changed, such as a port, are left
  alone.

Of an attribute that is not plain data only the kind is recorded: if the kind differs, it cannot be restored, and an
error says so. State that no attribute shows, such as a physics world written in C, is not seen here: `probe` tests
for that.
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
LONG = 400  # characters: of an unchanged value with more than this only a hash is kept, to compare
# Objects written in C whose results are known to depend on earlier episodes: contacts and the order of bodies in memory
# decide in which order a solver adds numbers. Kind -> name in messages.
WORLDS = {"b2World": "its Box2D world", "pymunk.space.Space": "its pymunk space"}


def hooks_of(env: gymnasium.Env) -> list[tuple[Any, str, str]]:
    """List the layers of an environment that save themselves, outermost first: (layer, save method, load method)."""
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
    """Return whether the layer has a method `name` that takes `count` arguments.

    MuJoCo's set_state(qpos, qvel) takes two and must not match.
    """
    method = getattr(type(layer), name, None)
    if not callable(method):
        return False
    code = getattr(method, "__code__", None)
    if code is None:
        return True
    needed = code.co_argcount - len(getattr(method, "__defaults__", None) or ())
    return bool(needed <= 1 + count <= code.co_argcount)


class EnvMemory:
    """The state of one environment object across episodes; the baseline is taken right after its first reset."""

    def __init__(self, env: gymnasium.Env) -> None:
        self._env = env
        first = look(env)
        self._first = {path: one.text for path, one in first.items()}
        self._held = {
            path: one.value for path, one in first.items() if _changeable(one)
        }  # references, so that no new object gets the same id

    def save(self) -> dict[str, Any]:
        """Save: {"hooks": [...], "changed": {path: text}, "kept": {path: text}, "replaced": [path, ...]}.

        changed: since the first reset; kept: unchanged since then. replaced: containers and objects that are no longer
        the same objects as then.
        """
        hooks: list[str | None] = []
        for layer, save, _ in hooks_of(self._env):
            try:
                hooks.append(json.dumps(encode(getattr(layer, save)(), limit=None)))
            except Exception:  # the method has another purpose; the attributes are saved instead
                hooks.append(None)
        now = look(self._env)
        changed = {path: one.text for path, one in now.items() if self._first.get(path) != one.text}
        kept = {path: _shortened(one.text) for path, one in now.items() if path not in changed}
        replaced = [path for path, one in now.items() if _changeable(one) and one.value is not self._held.get(path)]
        return {"hooks": hooks, "changed": changed, "kept": kept, "replaced": replaced}

    def load(self, saved: dict[str, Any]) -> list[str]:
        """Restore, after the replay of the episode, what differs from the saved state. Returns the paths restored.

        What never changed, neither in the saved object nor in this one, may differ and is left alone.
        Raises EnvError, naming the attribute, for what cannot be restored.
        """
        differing = self._differing(saved)
        for path in differing:
            if path in saved["changed"]:
                self._put(path, saved["changed"][path], saved["replaced"])
        layers = hooks_of(self._env)
        if len(layers) != len(saved["hooks"]):
            raise EnvError(f"{len(saved['hooks'])} of its layers saved themselves, but {len(layers)} can be loaded")
        loaded = [(*layer, state) for layer, state in zip(layers, saved["hooks"], strict=True) if state is not None]
        for layer, _, load, state in loaded:
            getattr(layer, load)(decode(json.loads(state)))
        if differing and (left := self._differing(saved)):
            raise EnvError(f"its attribute {left[0]} outlives episodes and cannot be restored")
        return [*differing, *(load for _, _, load, _ in loaded)]

    def _differing(self, saved: dict[str, Any]) -> list[str]:
        """List the paths that differ from the saved state."""
        now = {path: one.text for path, one in look(self._env).items()}
        moved = {path for path, text in now.items() if self._first.get(path) != text}
        changed, kept = saved["changed"], saved["kept"]
        found = [path for path, text in changed.items() if now.get(path) != text]
        found += [path for path, text in kept.items() if path in moved and _shortened(now[path]) != text]
        gone = [path for path in self._first if path in now and path not in changed and path not in kept]
        return found + gone

    def _put(self, path: str, text: str, replaced: list[str]) -> None:
        """Restore one attribute. Does nothing where that is impossible: `load` compares again afterwards."""
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
                holder = copy.copy(holder)  # it may be shared, such as the default of a dataclass
                put(now[owner].owner, now[owner].key, holder)
            put(holder, key if one is None else one.key, decode(encoded, None if one is None else one.value))
        except Exception:  # raised by third-party code, or because it is not plain data
            return


def _changeable(one: Found) -> bool:
    return issubclass(type(one.value), CHANGEABLE) or holds_more(one.value)


def _shortened(text: str) -> str:
    return text if len(text) <= LONG else hashlib.sha256(text.encode()).hexdigest()


class Snapshot:
    """The plain data reachable from a new environment, which may share it with the run or with other environments.

    Trial episodes must leave no trace: `put_back` restores everything in place, with the same objects.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        self._found = [one for one in look(env).values() if one.plain]
        self._contents: dict[int, tuple[Any, Any]] = {}  # by id: a container and its contents
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
        """Restore the contents of containers, the attributes, and the states of random number generators."""
        for value, held in self._contents.values():
            with contextlib.suppress(Exception):  # raised by third-party code
                refill(value, held)
        for one in self._found:
            with contextlib.suppress(Exception):  # the owner is closed now, or read-only
                set_generator(one.value, json.loads(one.text))
                if _current(one) is not one.value:
                    put(one.owner, one.key, one.value)


def _current(one: Found) -> Any:
    if isinstance(one.owner, dict | list | tuple | deque):
        return one.owner[one.key]
    return getattr(one.owner, one.key)


def worlds(env: gymnasium.Env) -> dict[int, str]:
    """Find opaque objects that may carry state across episodes: those in WORLDS, and iterators. {id: its name}."""
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
