"""Plain data in JSON and back: numbers, text, containers, NumPy arrays and random number generators.

encode(value)  a JSON value that says what `value` is: {"$array": ..., "dtype": ..., "shape": ...} and the like
decode(encoded)  the value again
put(owner, key, value, encoded)  into an attribute or entry, in place where something mutable is there already
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections import deque
from typing import Any

import numpy as np

LARGEST = 2**16  # bytes of an array; of a larger one only the SHA-256 is kept, which tells that it changed
MOST = 1000  # entries of a container with all in it; of a larger one only their number is kept


class OpaqueError(TypeError):
    """Not plain data."""


def encode(value: Any, limit: int | None = LARGEST) -> Any:
    """A value as JSON. Raises OpaqueError, naming its kind, for what is no plain data. limit: bytes of an array."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if value == value else {"$nan": None}  # NaN equals nothing, not even itself
    if isinstance(value, np.generic | np.ndarray):
        return _encode_array(value, limit)
    if limit is not None and isinstance(value, list | tuple | set | frozenset | deque | dict) and _count(value) > MOST:
        return {"$large": len(value)}
    if kind in (list, tuple, set, frozenset, deque):
        items = sorted(value, key=repr) if kind in (set, frozenset) else value
        coded = [encode(item, limit) for item in items]
        return coded if kind is list else {f"${kind.__name__}": coded}
    if isinstance(value, dict):
        if kind is dict and all(type(key) is str and not key.startswith("$") for key in value):
            return {key: encode(item, limit) for key, item in value.items()}
        return {"$dict": [[encode(key, limit), encode(item, limit)] for key, item in value.items()]}
    if isinstance(value, bytes | bytearray):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, np.random.Generator):
        return {"$generator": encode(value.bit_generator.state, None)}
    if isinstance(value, np.random.RandomState):
        return {"$random_state": encode(value.get_state(legacy=False), None)}
    if isinstance(value, random.Random):
        return {"$random": encode(value.getstate(), None)}
    raise OpaqueError(f"a {kind.__name__}")


def _count(value: Any) -> int:
    """How many entries a container holds with all containers in it, or any number above MOST."""
    count, waiting = 0, [value]
    while waiting and count <= MOST:
        one = waiting.pop()
        if isinstance(one, list | tuple | set | frozenset | deque | dict):
            count += len(one)
            waiting += [] if len(one) > MOST else one.values() if isinstance(one, dict) else one
    return count


def _encode_array(value: np.generic | np.ndarray, limit: int | None) -> Any:
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        if isinstance(value, np.str_):
            return str(value)
        raise OpaqueError(f"an array of dtype {array.dtype}")
    about = {"dtype": str(array.dtype), "shape": list(array.shape)}
    data = np.ascontiguousarray(array).tobytes()
    if limit is not None and len(data) > limit:
        return {"$large": hashlib.sha256(data).hexdigest(), **about}
    name = "$number" if isinstance(value, np.generic) else "$array"
    return {name: base64.b64encode(data).decode(), **about}


def decode(encoded: Any) -> Any:
    """The value that `encode` was given; a new object. Raises OpaqueError for a large one, which was not kept."""
    if isinstance(encoded, list):
        return [decode(item) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    tag = next(iter(encoded), "")
    content = encoded.get(tag)
    if tag in ("$array", "$number"):
        array = np.frombuffer(base64.b64decode(str(content)), encoded["dtype"]).reshape(encoded["shape"])
        return array.copy() if tag == "$array" else array[()]
    if tag == "$nan":
        return float("nan")
    if tag == "$large":
        raise OpaqueError("a large array or container")
    if tag == "$bytes":
        return base64.b64decode(str(content))
    if tag == "$dict":
        return {decode(key): decode(item) for key, item in content or ()}
    kinds = {"$tuple": tuple, "$set": set, "$frozenset": frozenset, "$deque": deque}
    if tag in kinds:
        return kinds[tag](decode(item) for item in content or ())
    if tag == "$generator":
        state = decode(content)
        fresh: Any = np.random.Generator(getattr(np.random, state["bit_generator"])())
        fresh.bit_generator.state = state
        return fresh
    if tag == "$random_state":
        old = np.random.RandomState()
        old.set_state(decode(content))
        return old
    if tag == "$random":
        python = random.Random()
        python.setstate(decode(content))
        return python
    return {key: decode(item) for key, item in encoded.items()}


def put(owner: Any, key: Any, value: Any, encoded: Any) -> None:
    """Make owner's `key`, which holds `value` now, what `encoded` says; quietly nothing where that cannot be.

    In place where both are containers, arrays or generators of a kind: others may hold the same object.
    """
    try:
        new = decode(encoded)
    except OpaqueError:
        return
    if _put_in_place(value, new):
        return
    if isinstance(owner, dict | list):
        owner[key] = new
    elif not isinstance(owner, tuple):
        try:
            setattr(owner, key, new)
        except AttributeError:  # frozen, or a property without a setter
            if not isinstance(owner, type):
                object.__setattr__(owner, key, new)


def _put_in_place(value: Any, new: Any) -> bool:
    """Fill `value` with what `new` holds. False where they are not of one kind, or it cannot be filled."""
    if isinstance(value, np.ndarray) and isinstance(new, np.ndarray):
        fits = value.shape == new.shape and value.dtype == new.dtype and value.flags.writeable
        if fits:
            np.copyto(value, new)
        return fits
    if isinstance(value, np.random.Generator) and isinstance(new, np.random.Generator):
        if type(value.bit_generator) is type(new.bit_generator):
            value.bit_generator.state = new.bit_generator.state
            return True
        return False
    if isinstance(value, np.random.RandomState) and isinstance(new, np.random.RandomState):
        value.set_state(new.get_state(legacy=False))
        return True
    if isinstance(value, random.Random) and isinstance(new, random.Random):
        value.setstate(new.getstate())
        return True
    if isinstance(value, dict) and isinstance(new, dict):
        value.clear()
        value.update(new)
        return True
    if isinstance(value, set | deque) and isinstance(new, set | deque):
        value.clear()
        for item in new:
            value.add(item) if isinstance(value, set) else value.append(item)
        return True
    if isinstance(value, list) and isinstance(new, list):
        value[:] = new
        return True
    return False
