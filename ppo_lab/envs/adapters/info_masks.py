"""Use action masks that are not part of the observation: from `info`, or from a method `action_masks()`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from ppo_lab.envs.adapters.rows import cast_problem
from ppo_lab.envs.spaces import MASK_KEY, flatten_space, leaf_paths, leaf_spaces, mask_size
from ppo_lab.errors import EnvError, describe_error

LOG = logging.getLogger("ppo_lab")
PLAIN_KEY = "obs"  # key of an observation without keys once the mask is added to it
IN_INFO, BY_METHOD = f"info[{MASK_KEY!r}]", "action_masks()"
# other common names of masks: only reported, never used, since their content varies (flags, numbers of actions)
NEAR_KEYS = ("mask", "legal_actions", "avail_actions", "action_masks")  # in the observation
NEAR_INFO = (*NEAR_KEYS, "legal_moves", "available_actions", "valid_actions")
NEAR_NAMES = (MASK_KEY, "valid_action_mask", "get_action_mask", "legal_actions", "avail_actions")
WRITE = f"if it is one, call it {MASK_KEY!r} in the observation or in info, or return it from a method action_masks()"
_told: set[str] = set()  # environments already warned about: evaluation makes the same ones repeatedly


class MaskFromInfo(gymnasium.Wrapper):
    """Copies info["action_mask"] of `reset` and `step` into the observation, as the key "action_mask".

    Where info has none, the method `action_masks()` is called. An observation without keys becomes the key "obs". The
    mask may be one array of `mask_size` entries or nested like the action space; at the end of an episode it may be
    missing, since no action follows.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        """Wrap `env`. Raises EnvError if its actions cannot be masked or the observation has an "action_mask" key."""
        super().__init__(env)
        size = mask_size(env.action_space)
        if not size:
            raise EnvError(f"env.mask_from_info: the action space {env.action_space} cannot be masked")
        inner = env.observation_space
        self._named = isinstance(inner, spaces.Dict)
        entries = dict(inner.spaces) if isinstance(inner, spaces.Dict) else {PLAIN_KEY: inner}
        if MASK_KEY in entries:
            raise EnvError(f"env.mask_from_info: the observation already has a key {MASK_KEY!r}; set it to false")
        self._size, self._ask, self._begun_with_one = size, mask_method(env), False
        self.observation_space = spaces.Dict({**entries, MASK_KEY: spaces.MultiBinary(size)}, sort_keys=False)

    def reset(self, **how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reset the environment and add the mask to the observation."""
        obs, info = self.env.reset(**how)
        self._begun_with_one = info.get(MASK_KEY) is not None
        return self._with_mask(obs, info, ended=False), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Step the environment and add the mask to the observation."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._with_mask(obs, info, bool(terminated or truncated)), reward, terminated, truncated, info

    def _with_mask(self, obs: Any, info: Mapping[str, Any], ended: bool) -> dict[str, Any]:
        mask = info.get(MASK_KEY)
        if mask is None and not ended:
            if self._ask is None:
                has = ", ".join(map(str, info)) or "none"
                of = " of step" if self._begun_with_one else ""
                why = "the info of reset had one, and every step needs one; " if self._begun_with_one else ""
                raise EnvError(
                    f"env.mask_from_info: info{of} has no {MASK_KEY!r} (its keys: {has}); {why}"
                    "set it to false to train without masks"
                )
            mask = self._ask()
        flat = np.ones(self._size, np.bool_) if mask is None else flat_mask(self.action_space, mask, self._size)
        return {**(obs if self._named else {PLAIN_KEY: obs}), MASK_KEY: flat}


class Offered(NamedTuple):
    """An action mask that an environment provides outside its observation."""

    where: str
    problem: str | None  # why it cannot be used; None: it can
    near: bool = False  # it has another name and may not be a mask at all


def offered_mask(env: gymnasium.Env) -> Offered | None:
    """Reset an environment and return the mask that it offers; None: none, or it is in the observation."""
    try:
        if MASK_KEY in leaf_paths(env.observation_space) or not (size := mask_size(env.action_space)):
            return None
        _, info = env.reset(seed=0)
    except Exception:  # the first reset of the run reports it better
        return None
    mask, method = info.get(MASK_KEY) if isinstance(info, Mapping) else None, mask_method(env)
    if mask is None and method is None:
        near = near_mask(env.observation_space, info, size) or _near_name(env)
        return None if near is None else Offered(near, WRITE, near=True)
    where = IN_INFO if mask is not None else BY_METHOD
    try:
        if mask is None and method is not None:
            mask = method()
        flat_mask(env.action_space, mask, size)
    except Exception as error:
        return Offered(where, str(error) if isinstance(error, EnvError) else describe_error(error))
    return Offered(where, None)


def near_mask(space: gymnasium.Space, info: Any, size: int) -> str | None:
    """Name what looks like a mask of `size` entries under another name in an observation or in info; None: nothing."""
    for key, leaf in leaf_spaces(flatten_space(space)).items():
        if key.rpartition("/")[2] in NEAR_KEYS and int(np.prod(leaf.shape or ())) == size:
            return f"{key!r} of the observation"
    for key, value in info.items() if isinstance(info, Mapping) else ():
        if key in NEAR_INFO and value is not None:
            return f"info[{key!r}]"
        if isinstance(value, Mapping) and value.get(MASK_KEY) is not None:
            return f"info[{key!r}][{MASK_KEY!r}]"
    return None


def _near_name(env: Any) -> str | None:
    """Name an attribute of the environment or a wrapper that is called nearly like a mask, without running code."""
    while env is not None:
        for name in NEAR_NAMES:
            if inspect.getattr_static(env, name, None) is not None:
                return f"{type(env).__name__}.{name}"
        env = env.env if isinstance(env, gymnasium.Wrapper) else None
    return None


def may_come_late(env: gymnasium.Env, info: Any) -> bool:
    """Return whether, after a reset with this info, a mask in the info of `step` would be the first."""
    there = isinstance(info, Mapping) and MASK_KEY in info
    return not there and MASK_KEY not in leaf_paths(env.observation_space) and mask_size(env.action_space) > 0


def tell_late_mask(env: gymnasium.Env, info: Any) -> None:
    """Warn once if the info of `step` has a mask although the info of `reset` had none."""
    name = type(env.unwrapped).__name__
    if name not in _told and isinstance(info, Mapping) and info.get(MASK_KEY) is not None:
        _told.add(name)
        LOG.warning("%s: %s of step is ignored: the info of reset has none, and must have one too", name, IN_INFO)


def usable(offered: Offered | None) -> bool:
    """Return whether there is a mask and it fits."""
    return offered is not None and offered.problem is None


def tell_mask(name: str, setting: bool | str, offered: Offered | None) -> None:
    """Log whether the mask that environment `name` offers is used under this value of `env.mask_from_info`."""
    if offered is None or (setting is False and offered.near):
        return
    if setting is False:
        LOG.warning(
            "%s: %s is ignored, as env.mask_from_info is false; set it to auto or true to use it", name, offered.where
        )
    elif offered.near:
        LOG.warning("%s: %s is not used as an action mask; %s", name, offered.where, offered.problem)
    elif offered.problem is not None:
        LOG.warning("%s: %s is ignored: %s", name, offered.where, offered.problem)
    else:
        LOG.info("%s: action masks are taken from %s (env.mask_from_info)", name, offered.where)


def mask_method(env: gymnasium.Env) -> Callable[[], Any] | None:
    """Return `action_masks()` (sb3-contrib's convention) of an environment or one of its wrappers, else None."""
    try:
        method: Any = env.get_wrapper_attr("action_masks")
        inspect.signature(method).bind()
    except Exception:  # it does not exist, is not callable, or needs arguments
        return None
    found: Callable[[], Any] = method
    return found


def flat_mask(space: gymnasium.Space, mask: Any, size: int) -> np.ndarray:
    """Convert a mask for an action space to (size,) bool. Raises EnvError unless it has `size` entries, each 0 or 1."""
    flat = np.concatenate(_rows(space, mask))
    if len(flat) != size:
        raise EnvError(f"env.mask_from_info: {len(flat)} entries, {space} takes {size}")
    if (problem := cast_problem(flat, np.dtype(np.bool_))) is not None:
        raise EnvError(f"env.mask_from_info: a mask {problem}; expected 0 or 1 for each action")
    return flat.astype(np.bool_)


def _rows(space: gymnasium.Space, mask: Any) -> list[np.ndarray]:
    """Split a mask into flat arrays, in the order of the action space if it is nested like it; Box has none."""
    if isinstance(space, spaces.Dict) and isinstance(mask, Mapping):
        return [row for key, inner in space.spaces.items() if key in mask for row in _rows(inner, mask[key])]
    if isinstance(mask, tuple | list) and not isinstance(space, spaces.Tuple) and np.ndim(mask[0]) == 0:
        return [np.asarray(mask)]
    if isinstance(mask, tuple | list) or (isinstance(mask, np.ndarray) and mask.dtype == object):
        # of Tuple, or of the components of MultiDiscrete
        inners = space.spaces if isinstance(space, spaces.Tuple) else [space] * len(mask)
        return [row for inner, part in zip(inners, mask, strict=True) for row in _rows(inner, part)]
    return [] if isinstance(space, spaces.Box) else [np.asarray(mask).reshape(-1)]
