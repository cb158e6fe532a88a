"""Describe spaces as JSON data, so that a policy can be loaded without its environment."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces

from ppo_lab.envs.spaces import brightest
from ppo_lab.errors import EnvError

LONG = 64  # bounds; up to this many are always written out in full


def describe_space(space: Space) -> dict[str, Any]:
    """Describe a flat space (Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of these) as JSON data.

    Raises EnvError for any other space.
    """
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, spaces.Box):
        ends = {end: _ends(getattr(space, end)) for end in ("low", "high")}
        return {"kind": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **ends}
    if isinstance(space, spaces.Dict):
        keys = {key: describe_space(inner) for key, inner in space.spaces.items()}
        return {"kind": "Dict", "spaces": keys, "order": list(keys)}  # JSON writers may sort keys
    raise EnvError(f"space {space} is not supported; supported: Box, Discrete, MultiDiscrete, MultiBinary and Dict")


def make_space(text: dict[str, Any]) -> Space:
    """Rebuild the space from the output of `describe_space`."""
    kind = text["kind"]
    if kind == "Discrete":
        return spaces.Discrete(text["n"], start=text["start"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.array(text["nvec"], np.int64), start=np.array(text["start"], np.int64))
    if kind == "MultiBinary":
        return spaces.MultiBinary(text["shape"][0] if len(text["shape"]) == 1 else text["shape"])
    if kind == "Dict":
        return spaces.Dict({key: make_space(text["spaces"][key]) for key in text["order"]}, sort_keys=False)
    shape, dtype = tuple(text["shape"]), np.dtype(text["dtype"])
    low, high = (np.broadcast_to(np.array(text[end], dtype).reshape(_fits(text[end], shape)), shape).copy()
                 for end in ("low", "high"))  # fmt: skip
    return spaces.Box(low, high, dtype=low.dtype.type)


def _ends(values: np.ndarray) -> Any:
    """Return the bounds of a Box as a flat list, or as one number where more than LONG bounds are all equal."""
    flat = values.ravel()
    same = values.size > LONG and (flat == flat[0]).all()
    return flat[0].item() if same else flat.tolist()


def _fits(ends: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if isinstance(ends, list) else ()


class Unlike(NamedTuple):
    """One difference between two spaces."""

    text: str  # "observation: Box of shape (4,) in the checkpoint, (6,) here"
    bounds_only: bool = False  # only bounds of observations differ, and no network depends on them


def unlike(theirs: dict[str, Any], ours: dict[str, Any], name: str) -> list[Unlike]:
    """Compare two described spaces key by key and list their differences. name: "observation" or "action".

    Bounds of an action Box always count: the same network output would be a different action.
    """
    one, other = (text["spaces"] if text["kind"] == "Dict" else {"": text} for text in (theirs, ours))
    if (theirs["kind"] == "Dict") != (ours["kind"] == "Dict"):
        return [Unlike(f"{name}: {_sketch(theirs, name)} in the checkpoint, {_sketch(ours, name)} here")]
    found = [Unlike(f"{name}: key {key!r} is missing here") for key in one if key not in other]
    found += [Unlike(f"{name}: key {key!r} is not in the checkpoint") for key in other if key not in one]
    if not found and theirs.get("order") != ours.get("order"):
        before, now = (", ".join(text["order"]) for text in (theirs, ours))
        return [Unlike(f"{name}: keys in the order {before} in the checkpoint, {now} here")]
    for key in one:
        if key in other:
            of = f"{name}: key {key!r}: " if key else f"{name}: "
            found += [part._replace(text=of + part.text) for part in _unlike_leaves(one[key], other[key], name)]
    return found


ASPECTS = {  # fields compared between two leaves, in addition to the bounds of a Box; `_sketch` shows the first
    "Box": {"shape": "of shape {}", "dtype": "of {}"},
    "Discrete": {"n": "with {} {what}s", "start": "whose first {what} is {}"},
    "MultiDiscrete": {"nvec": "with {} {what}s", "start": "whose first {what}s are {}"},
    "MultiBinary": {"shape": "of shape {}"},
}


def _unlike_leaves(theirs: dict[str, Any], ours: dict[str, Any], name: str) -> list[Unlike]:
    kind, what = theirs["kind"], "action" if name == "action" else "value"
    if kind != ours["kind"]:
        return [Unlike(f"{_sketch(theirs, name)} in the checkpoint, {_sketch(ours, name)} here")]
    found = []
    for aspect, words in ASPECTS[kind].items():
        before, now = (_tuple(text[aspect]) for text in (theirs, ours))
        if before != now:
            found.append(Unlike(f"{kind} {words.format(before, what=what)} in the checkpoint, {now} here"))
    return found if found or kind != "Box" else _unlike_bounds(theirs, ours, name)


def _unlike_bounds(theirs: dict[str, Any], ours: dict[str, Any], name: str) -> list[Unlike]:
    before, now = _bounds(theirs), _bounds(ours)
    first = next((i for i, (a, b) in enumerate(zip(before, now, strict=True)) if a != b), None)
    if first is None:
        return []
    everywhere = len(set(before)) == len(set(now)) == 1
    old, new = ("{:g} to {:g}".format(*bounds[first]) for bounds in (before, now))
    text = f"Box with bounds {'' if everywhere else f'of entry {first}: '}{old} in the checkpoint, {new} here"
    return [Unlike(text, name == "observation" and brightest(make_space(theirs)) == brightest(make_space(ours)))]


def _sketch(text: dict[str, Any], name: str) -> str:
    """Summarize a described space in a few words."""
    if text["kind"] == "Dict":
        return f"Dict with the keys {', '.join(text['order'])}"
    aspect, words = next(iter(ASPECTS[text["kind"]].items()))
    return f"{text['kind']} {words.format(_tuple(text[aspect]), what='action' if name == 'action' else 'value')}"


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value


def _bounds(text: dict[str, Any]) -> list[tuple[float, float]]:
    """Return (low, high) of each entry of a described Box."""
    count = int(np.prod(text["shape"]))
    ends = (np.broadcast_to(np.array(text[end], np.float64), (count,)).tolist() for end in ("low", "high"))
    return list(zip(*ends, strict=True))
