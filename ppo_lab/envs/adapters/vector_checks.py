"""Checks that need the internals of a gymnasium.vector.VectorEnv: shared objects, unused masks, reused buffers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from ppo_lab.envs.adapters.info_masks import BY_METHOD, IN_INFO, mask_method, near_mask
from ppo_lab.envs.adapters.loop import check_distinct
from ppo_lab.envs.adapters.rows import equal_keys
from ppo_lab.envs.spaces import MASK_KEY, flatten_value, leaf_spaces, map_leaves, mask_size, parts

LOG = logging.getLogger("ppo_lab")
EPISODES, STEPS = 3, 25  # played by `written_over`
_told: set[str] = set()  # names already warned about: evaluation makes the same vector environment repeatedly


def check_objects(envs: VectorEnv) -> None:
    """Raise EnvError if a SyncVectorEnv steps the same object twice."""
    inner = envs.unwrapped
    if isinstance(inner, SyncVectorEnv):
        check_distinct(inner.envs)


def tell_ignored_mask(envs: VectorEnv, infos: Mapping[str, Any], name: str) -> None:
    """Warn once that a mask which is not in the observation is ignored."""
    if name in _told or MASK_KEY in leaf_spaces(envs.single_observation_space):
        return
    if not (size := mask_size(envs.single_action_space)):
        return
    where = IN_INFO if MASK_KEY in infos else BY_METHOD if _has_method(envs) else None
    where = where or near_mask(envs.single_observation_space, infos, size)
    if where is not None:
        _told.add(name)
        LOG.warning(
            "%s: %s is ignored: a vector environment must have its masks in the observation, as %r",
            name,
            where,
            MASK_KEY,
        )


def _has_method(envs: VectorEnv) -> bool:
    inner = envs.unwrapped
    if isinstance(inner, SyncVectorEnv):
        return mask_method(inner.envs[0]) is not None
    if isinstance(inner, AsyncVectorEnv):  # asking a worker for a missing attribute ends it
        with contextlib.suppress(Exception), contextlib.closing(inner.env_fns[0]()) as env:
            return mask_method(env) is not None
    return False


def lost_workers(envs: VectorEnv) -> list[int]:
    """List the environments of an AsyncVectorEnv whose processes ended: it ends one that raises and starts no other."""
    inner = envs.unwrapped
    if not isinstance(inner, AsyncVectorEnv):
        return []
    alive = [process.is_alive() for process in inner.processes]
    return [i for i, pipe in enumerate(inner.parent_pipes) if pipe is None or not alive[i]]


def lost_keys(envs: VectorEnv, i: int) -> set[str]:
    """Return the keys of the last observation that the i-th environment of an AsyncVectorEnv overwrites in a reset.

    In SAME_STEP its process resets it before the final observation is sent. If the two are equal, that proves nothing:
    an environment may end where it begins. So one is made and tested here.
    """
    inner = envs.unwrapped
    with contextlib.suppress(Exception):  # it cannot be made or played here, so nothing is known
        return written_over(inner.env_fns[i]) if isinstance(inner, AsyncVectorEnv) else set()
    return set()


def written_over(make: Callable[[], gymnasium.Env]) -> set[str]:
    """Return the keys of the arrays that a reset changes after a step has returned them; "" for a single array."""
    found = set[str]()
    with contextlib.closing(make()) as env:
        for seed in range(EPISODES):
            obs, info = env.reset(seed=seed)
            for _ in range(STEPS):
                obs, _, terminated, truncated, info = env.step(_some_action(env.action_space, obs, info))
                if terminated or truncated:
                    break
            last = flatten_value(env.observation_space, obs)
            before = map_leaves(np.array, last)
            env.reset()
            found |= parts(last).keys() - equal_keys(before, last)
    return found


def _some_action(space: gymnasium.Space, obs: Any, info: Any) -> Any:
    """Draw a random action, a legal one if there is a mask for a Discrete space."""
    for place in (obs, info):
        if isinstance(space, Discrete) and isinstance(place, Mapping) and place.get(MASK_KEY) is not None:
            return space.sample(mask=np.asarray(place[MASK_KEY], np.int8))
    return space.sample()
