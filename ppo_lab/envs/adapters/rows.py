"""NumPy rows for the results of N environments, and checks of these results.

An observation is one array or a flat dictionary of arrays; `ObsRows` writes, compares and checks either.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import MultiBinary

from ppo_lab.envs.spaces import MASK_KEY, bounds, flatten_space, follow, leaf_paths, leaf_spaces, map_leaves, parts
from ppo_lab.errors import EnvError

ArrayTree = Any  # one array, or a flat dictionary of arrays
Format = tuple[tuple[int, ...], np.dtype]  # shape and dtype of one array
NO_NUMBERS = np.zeros((0, 0))
KEPT = {"float64": np.float32, "uint16": np.int32, "uint32": np.int64}  # dtypes that networks or torch cannot take


class Rows(NamedTuple):
    """The results of N environments, one row each. A worker writes a slice of it."""

    obs: ArrayTree  # (N, *obs) the observation to act on next
    final_obs: ArrayTree  # (N, *obs) the observation that the action led to
    reward: np.ndarray  # (N,) float32
    terminated: np.ndarray  # (N,) bool
    truncated: np.ndarray  # (N,) bool
    info: np.ndarray = NO_NUMBERS  # (N, K) float64 numbers from info, NaN where one was not given


def obs_format(num_envs: int, space: gymnasium.Space) -> Any:
    """Return shape and dtype of N observations of a flat space: a Format, or a dictionary of them."""
    formats = {
        key: ((num_envs, *(leaf.shape or ())), obs_dtype(leaf, key.rpartition("/")[2] == MASK_KEY))
        for key, leaf in leaf_spaces(space).items()
    }
    return formats.get("", formats)


def row_formats(num_envs: int, space: gymnasium.Space, numbers: int = 0) -> list[Any]:
    """Return shape and dtype of each field of Rows, for a flat observation space and K = `numbers` from info."""
    obs, info = obs_format(num_envs, space), ((num_envs, numbers), np.dtype(np.float64))
    return [obs, obs, ((num_envs,), np.dtype(np.float32)), *[((num_envs,), np.dtype(np.bool_))] * 2, info]


def empty_rows(num_envs: int, space: gymnasium.Space, numbers: int = 0) -> Rows:
    """Make Rows of zeros, for a flat observation space and K = `numbers` from info."""
    return Rows(*(map_leaves(lambda one: np.zeros(*one), formats) for formats in row_formats(num_envs, space, numbers)))


def obs_dtype(space: gymnasium.Space, mask: bool = False) -> np.dtype:
    """Return the dtype in which observations of a leaf space are kept: its own, with few exceptions.

    int64 for Discrete and MultiDiscrete, bool for MultiBinary and action masks, float32 for float64; uint16 and uint32,
    which torch cannot compute with, become int32 and int64.
    """
    if mask or isinstance(space, MultiBinary):
        return np.dtype(np.bool_)
    if bounds(space) is not None:
        return np.dtype(np.int64)
    return np.dtype(KEPT.get(str(space.dtype), space.dtype))


def cast_problem(array: np.ndarray, kept: np.dtype) -> str | None:
    """Describe, as "of ...", what casting `array` to dtype `kept` would lose; None: nothing, or digits of a float.

    Floats in 0..1 declared as uint8 would all become 0, an int64 of 300 declared as int8 would become 44, and a mask of
    logits (0 and -inf) would allow everything.
    """
    dtype = array.dtype
    if dtype == kept:
        return None
    if not (dtype.kind in "biuf" if kept == np.bool_ else np.can_cast(dtype, kept, "same_kind")):
        return f"of dtype {dtype}"
    if kept.kind == "f":
        return None
    wraps_back = dtype.kind == "u" and kept.kind == "i" and dtype.itemsize == kept.itemsize  # 200 -> -56 -> 200
    if not wraps_back and array.astype(kept).astype(dtype).tobytes() == array.tobytes():  # in a fifth of the time
        return None
    lost = array.astype(kept) != array
    return f"of dtype {dtype} that holds {array[lost].flat[0]}" if lost.any() else None


def harmless_kinds(space: gymnasium.Space, kept: np.dtype) -> frozenset[Any]:
    """Return the dtypes that can be cast to `kept` without loss, whatever values an observation of a leaf space has.

    For a space of one number, Python's number types are included: Discrete environments often return an int.
    """
    casting: Any = "safe" if kept.kind in "iub" else "same_kind"  # a float may lose digits
    kinds: set[Any] = {one for one in map(np.dtype, np.sctypeDict.values()) if np.can_cast(one, kept, casting)}
    if not space.shape:
        kinds |= {bool, int, float} if kept.kind == "f" else {bool, int} if kept.kind == "i" else {bool}
    return frozenset(kinds | {space.dtype})


def find_non_finite(reward: np.ndarray, obs: ArrayTree) -> tuple[int, str]:
    """Find the first row with NaN or infinity in reward (N,) or obs (N, *obs), and describe what is wrong there."""
    if not np.isfinite(reward).all():
        row = int(np.argmin(np.isfinite(reward)))
        return row, f"reward {reward[row]}"
    for key, values in parts(obs).items():
        good = np.isfinite(values).reshape(len(values), -1)  # (N, entries)
        if not good.all():
            row = int(np.argmin(good.all(axis=1)))
            entry = int(np.argmin(good[row]))
            where = f"entry {entry} of {good.shape[1]}" + (f" of {key!r}" if key else "")
            return row, f"an observation with {values[row].flat[entry]} in {where}"
    raise ValueError("every number is finite")


Limits = dict[str, tuple[np.ndarray, np.ndarray]]  # key of a Discrete or MultiDiscrete leaf -> (smallest, largest)


def limits_of(space: gymnasium.Space, obs: ArrayTree) -> Limits:
    """Return the bounds of the discrete leaves of a flat space, for observations kept in arrays like those of `obs`."""
    kept = parts(obs)
    limits = {key: bounds(leaf) for key, leaf in leaf_spaces(space).items() if kept[key].dtype.kind == "i"}
    return {key: both for key, both in limits.items() if both is not None}


def find_outside(obs: ArrayTree, limits: Limits) -> tuple[int, str] | None:
    """Find the first row of obs (N, *obs) with a discrete value out of bounds, and describe it; None: there is none."""
    for key, (low, high) in limits.items():
        values = parts(obs)[key]
        bad = (values < low) | (values > high)
        if bad.any():
            i = int(np.argmax(bad.reshape(len(values), -1).any(axis=1)))
            allowed = f"{low} .. {high}" if low.ndim == 0 else f"{low.tolist()} .. {high.tolist()}"
            return i, f"observation {values[i]}{f' of {key!r}' if key else ''}, its space allows {allowed}"
    return None


class ObsRows:
    """Writes and checks the observations of n environments in their rows; `space` as declared, nested or not."""

    def __init__(self, space: gymnasium.Space, rows: Rows) -> None:
        flat_space = flatten_space(space)
        spaces = leaf_spaces(flat_space)
        self._paths = leaf_paths(space)
        self.plain = "" in self._paths  # one array: the loop writes it without calling this class
        self.shape = spaces[""].shape or () if self.plain else ()
        # dtypes and Python number types that are written without inspecting the values
        self.harmless = harmless_kinds(spaces[""], rows.obs.dtype) if self.plain else frozenset()
        self._kept = map_leaves(lambda array: (array.shape[1:], array.dtype), rows.obs)
        self._floats: list[tuple[np.ndarray, np.ndarray]] = []  # all numbers of a leaf, and zeros like them
        self.limits = limits_of(flat_space, rows.final_obs)
        self._final_obs = rows.final_obs
        for values in parts(rows.final_obs).values():
            flat = values.reshape(-1)
            # 0 * x is 0 for every finite x, else NaN: a dot product finds a bad value faster than isfinite().all()
            zeros = np.zeros_like(flat) if values.dtype.kind == "f" else None
            if zeros is not None:
                self._floats.append((flat, zeros))

    def as_declared(self, seen: Any) -> ArrayTree:
        """Convert an observation to flat arrays of the declared shapes and dtypes. Raises ValueError or EnvError."""
        if self.plain:
            return _as_declared(seen, self._kept, "")
        flat = follow(self._paths, seen)
        return {key: _as_declared(flat[key], kept, key) for key, kept in self._kept.items()}

    def all_finite(self) -> bool:
        """Return whether every number of `rows.final_obs` is finite."""
        for flat, zeros in self._floats:  # noqa: SIM110 - all() of a generator takes longer than the dot product
            if flat.dot(zeros) != 0:
                return False
        return True

    def out_of_range(self) -> tuple[int, str] | None:
        """Find the first row of `rows.final_obs` with a discrete value out of bounds, and describe it; None: none."""
        return find_outside(self._final_obs, self.limits)


def _as_declared(seen: Any, kept: Format, key: str) -> np.ndarray:
    """Convert one leaf to an array of the declared shape. Raises ValueError if shape or dtype does not fit."""
    shape, dtype = kept
    array = np.asarray(seen)
    of = f" of {key!r}" if key else ""
    if array.shape != shape:
        raise ValueError(f"an observation{of} of shape {array.shape}, its space declares {shape}")
    if (problem := cast_problem(array, dtype)) is not None:
        problem = f"that is a {type(seen).__name__}" if array.dtype.kind == "O" else problem
        raise ValueError(f"an observation{of} {problem}, its space declares {dtype}")
    return array


def write_row(target: ArrayTree, i: int | np.integer, value: ArrayTree) -> None:
    """Set target[i] = value in every leaf. This copies, since many environments reuse their buffers."""
    if isinstance(target, dict):
        for key, array in target.items():
            array[i] = value[key]
    else:
        target[i] = value


def row_of(tree: ArrayTree, i: int) -> ArrayTree:
    """Return row i of every leaf."""
    return map_leaves(lambda array: array[i], tree)


def equal(one: ArrayTree, other: ArrayTree) -> bool:
    """Return whether two flat values are equal, leaf by leaf."""
    return parts(one).keys() == parts(other).keys() == equal_keys(one, other)


def equal_keys(one: ArrayTree, other: ArrayTree) -> set[str]:
    """Return the keys of the leaves in which two flat values are equal; "" for a single leaf."""
    ours, theirs = parts(one), parts(other)
    return {key for key in ours.keys() & theirs.keys() if np.array_equal(ours[key], theirs[key])}


def check_structure(tree: Any, formats: Any, what: str) -> None:
    """Raise EnvError unless `tree` has the same keys as `formats`."""
    expected, got = (sorted(one) if isinstance(one, dict) else None for one in (formats, tree))
    if expected != got:
        wanted = "one array" if expected is None else f"the keys {', '.join(expected)}"
        raise EnvError(
            f"expected {what} as {wanted}, got {'one array' if got is None else 'the keys ' + ', '.join(got)}"
        )
