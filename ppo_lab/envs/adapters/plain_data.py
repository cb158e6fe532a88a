"""Encode plain data as JSON and decode it: numbers, text, containers, arrays, random number generators, Enum members.

    encode(value)           a JSON value that describes `value`: {"$array": ..., "dtype": ..., "shape": ...}
    decode(encoded, live)   the value again; `live`, the current value, gives the class of an Enum member
    put(owner, key, value)  set an attribute or entry

Exact types only: a subclass of `dict` or `list` may do more than hold data, so it is not plain data.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from enum import Enum
from typing import Any

import numpy as np

LARGEST = 2**19  # bytes of an array; of a larger one only the SHA-256 is kept, which shows that it changed
MOST = 1000  # entries of a container, nested ones included; of a larger one only the number of entries is kept
LONGEST = 50_000  # the same for a container of numbers alone
FACTORIES: dict[str, Any] = {kind.__name__: kind for kind in (int, float, list, dict, set, str)}  # of a defaultdict
SEQUENCES = {kind.__name__: kind for kind in (list, tuple, set, frozenset, deque)}
MAPPINGS: dict[str, Any] = {kind.__name__: kind for kind in (dict, OrderedDict, Counter, defaultdict)}
SCALARS = {int, float, bool, str, type(None)}
CHANGEABLE = (list, set, deque, dict, bytearray, np.ndarray)


class OpaqueError(TypeError):
    """Raised for a value that is not plain data."""


def encode(value: Any, limit: int | None = LARGEST) -> Any:
    """Encode a value as JSON. Raises OpaqueError with its type if it is not plain data. limit: bytes of an array."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if value == value else {"$nan": None}  # NaN equals nothing, not even itself
    if isinstance(value, np.generic) or kind is np.ndarray:
        return _encode_array(value, limit)
    if kind in (*SEQUENCES.values(), *MAPPINGS.values()):
        return _encode_container(value, limit)
    if isinstance(value, bytes | bytearray) and kind in (bytes, bytearray):
        return {f"${kind.__name__}": base64.b64encode(value).decode()}
    if isinstance(value, Enum):
        return {"$enum": f"{kind.__module__}.{kind.__qualname__}", "name": value.name}
    if kind is np.random.Generator:
        return {"$generator": encode(value.bit_generator.state, None)}
    if kind is np.random.RandomState:
        return {"$random_state": encode(value.get_state(legacy=False), None)}
    if kind is random.Random:
        return {"$random": encode(value.getstate(), None)}
    torch = sys.modules.get("torch")  # worker processes do not import it
    if torch is not None and kind is torch.Tensor:
        return {"$torch_tensor": encode(value.numpy(force=True), limit)}
    if torch is not None and kind is torch.Generator:
        return {"$torch_generator": encode(value.get_state().numpy(), None)}
    raise OpaqueError(f"a {kind.__name__}")


def _encode_container(value: Any, limit: int | None) -> Any:
    kind = type(value)
    numbers = _numbers(value) if limit is not None and kind in (list, deque) else None
    plain = kind is list and len(value) <= LONGEST and set(map(type, value)) <= SCALARS
    if limit is not None and numbers is None and not plain and _count(value) > MOST:
        return {"$large": len(value)}
    about: dict[str, Any] = {"maxlen": value.maxlen} if isinstance(value, deque) and value.maxlen is not None else {}
    if numbers is not None:
        scalars = isinstance(value[0], np.generic)
        return {"$numbers": kind.__name__, "of": encode(numbers, None), "scalars": scalars, **about}
    if kind in MAPPINGS.values():
        if isinstance(value, defaultdict) and value.default_factory is not None:
            factory = getattr(value.default_factory, "__name__", "")
            if FACTORIES.get(factory) is not value.default_factory:
                raise OpaqueError("a defaultdict with a custom factory")
            about = {"factory": factory}
        return {f"${kind.__name__}": [[encode(k, limit), encode(v, limit)] for k, v in value.items()], **about}
    items = [encode(item, limit) for item in value]
    if kind in (set, frozenset):
        items.sort(key=json.dumps)
    return items if kind is list else {f"${kind.__name__}": items, **about}


def _numbers(value: list[Any] | deque[Any]) -> np.ndarray | None:
    """Convert a long sequence of only floats or only ints to an array; return None for all others."""
    if not MOST // 16 < len(value) <= LONGEST:
        return None
    kinds = set(map(type, value))
    if kinds == {float}:
        return np.array(value)
    if len(kinds) == 1 and issubclass(next(iter(kinds)), np.number):
        return np.array(value)
    if kinds == {int} and all(-(2**62) < number < 2**62 for number in value):
        return np.array(value, np.int64)
    return None


def _count(value: Any) -> int:
    """Count the entries of a container and all containers in it; the count may stop once it is above MOST."""
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


def decode(encoded: Any, live: Any = None) -> Any:
    """Decode the output of `encode` to a new object. Raises OpaqueError for content that was not kept.

    live: the current value, which gives the class of an Enum member.
    """
    if isinstance(encoded, list):
        return [decode(item, live) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    tag = next(iter(encoded), "")
    content, kind = encoded[tag], tag[1:]
    if tag in ("$array", "$number"):
        array = np.frombuffer(base64.b64decode(content), encoded["dtype"]).reshape(encoded["shape"])
        return array.copy() if tag == "$array" else array[()]
    if tag == "$nan":
        return float("nan")
    if tag in ("$bytes", "$bytearray"):
        data = base64.b64decode(content)
        return data if tag == "$bytes" else bytearray(data)
    if tag == "$numbers":
        array = decode(encoded["of"])
        numbers = list(array) if encoded["scalars"] else array.tolist()
        return deque(numbers, encoded.get("maxlen")) if content == "deque" else numbers
    if kind in MAPPINGS:
        pairs = [(decode(key, live), decode(item, live)) for key, item in content]
        if kind == "defaultdict":
            filled: Any = defaultdict(FACTORIES.get(encoded.get("factory", "")))
            filled.update(pairs)
            return filled
        return MAPPINGS[kind](dict(pairs) if kind == "Counter" else pairs)
    if kind in SEQUENCES:
        items = [decode(item, live) for item in content]
        return deque(items, encoded.get("maxlen")) if kind == "deque" else SEQUENCES[kind](items)
    if tag == "$enum":
        member = type(live)
        if isinstance(live, Enum) and f"{member.__module__}.{member.__qualname__}" == content:
            return member[encoded["name"]]
    if tag == "$torch_tensor":
        return sys.modules["torch"].from_numpy(decode(content))
    raise OpaqueError("a value that cannot be recreated")


def put(owner: Any, key: Any, value: Any) -> None:
    """Set attribute or entry `key` of `owner` to `value`. Raises whatever the owner raises."""
    if isinstance(owner, dict | list | deque):
        owner[key] = value
        return
    try:
        setattr(owner, key, value)
    except Exception:  # frozen, or a property without a setter
        if isinstance(owner, type):
            raise
        object.__setattr__(owner, key, value)


def contents(value: Any) -> Any:
    """Return the contents of a container as a list, or a copy of an array; None for anything else or a large one."""
    if isinstance(value, np.ndarray):
        return value.copy() if value.nbytes <= LARGEST else None
    if not isinstance(value, CHANGEABLE) or len(value) > LONGEST:
        return None
    return list(value.items()) if isinstance(value, dict) else list(value)


def refill(value: Any, held: Any) -> None:
    """Write the result of `contents` back into a container or an array, in place."""
    if isinstance(value, np.ndarray):
        if value.flags.writeable:
            np.copyto(value, held)
    elif isinstance(value, list | bytearray):
        value[:] = held
    elif isinstance(value, dict):
        value.clear()
        dict.update(value, held)  # Counter.update would add counts
    else:
        value.clear()
        value.extend(held) if isinstance(value, deque) else value.update(held)


def fill(value: Any, new: Any) -> bool:
    """Copy the contents of `new` into a container or an array, in place. Returns False if their types do not match."""
    if type(value) is not type(new) or not isinstance(value, CHANGEABLE):
        return False
    if isinstance(value, np.ndarray):
        fits = value.shape == new.shape and value.dtype == new.dtype and value.flags.writeable
    else:
        fits = getattr(value, "maxlen", None) == getattr(new, "maxlen", None)
    if fits:
        refill(value, contents(new))
    return bool(fits)


def set_generator(value: Any, encoded: Any) -> bool:
    """Set a random number generator to a saved state, in place since others may share it. Returns False for others."""
    tag = next(iter(encoded), "") if isinstance(encoded, dict) else ""
    if tag == "$generator" and isinstance(value, np.random.Generator):
        state = decode(encoded[tag])
        if state["bit_generator"] != value.bit_generator.state["bit_generator"]:
            return False
        value.bit_generator.state = state
    elif tag == "$random_state" and isinstance(value, np.random.RandomState):
        value.set_state(decode(encoded[tag]))
    elif tag == "$random" and isinstance(value, random.Random):
        value.setstate(decode(encoded[tag]))
    elif tag == "$torch_generator" and type(value) is getattr(sys.modules.get("torch"), "Generator", None):
        value.set_state(sys.modules["torch"].from_numpy(decode(encoded[tag])))
    else:
        return False
    return True
