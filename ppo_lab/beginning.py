"""Where the update under way began: what a stop or an error in the middle of it saves, and goes back to."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ppo_lab.envs import Envs
from ppo_lab.errors import EnvError
from ppo_lab.train_state import TrainState

LOG = logging.getLogger("ppo_lab")
SLOW = 0.5  # seconds of an update from which on all of it is copied: then that takes no time to speak of
AHEAD = "saved after an error in the middle of an update, without what the environments remember of earlier episodes"


class Beginning:
    """The state at the beginning of an update.

    Of quick updates only what a rollout changes is copied, which takes some 30 microseconds: enough for an environment
    that fails. Of slow ones everything, so that training can stop in the middle of one and lose nothing.
    """

    def __init__(self, state: TrainState, envs: Envs, slow: bool) -> None:
        everything = state.state_dict() if slow else _of_a_rollout(state)
        self._parts: dict[str, Any] = _copied(everything)
        under_way = None if slow else getattr(envs, "episodes_under_way", None)
        self.envs: dict[str, Any] = getattr(envs, "state_dict", dict)() if under_way is None else under_way()
        self.inexact_because = None if under_way is None else AHEAD
        self.whole, self._began = slow, time.monotonic()
        self.update, self.global_step = state.update, state.global_step

    def can_be_left(self) -> bool:
        """The update can be left where it is: it takes long, and goes on from its beginning."""
        return self.whole and time.monotonic() - self._began > SLOW

    def tree(self, state: TrainState) -> dict[str, Any]:
        """What `state.state_dict()` was then; of a quick update, as long as it has not learned."""
        return {**state.state_dict(), **self._parts}

    def put_back(self, state: TrainState, envs: Envs, run_seed: int) -> str | None:
        """Environments, and what belongs to them, as they were, after one of them failed in the rollout.

        Where that cannot be, new episodes begin, and the reason is returned. Raises EnvError if none can.
        """
        load = getattr(envs, "load_state_dict", None)
        try:
            if load is None or not self.envs:
                raise EnvError("these environments cannot tell their state")
            load(self.envs)
        except EnvError as error:
            state.begin_episodes(envs, run_seed)
            state.episodes.forget_under_way()
            return str(error)
        state.obs, state.memory, state.starts = (_copied(self._parts[name]) for name in ("obs", "memory", "starts"))
        state.action_rng.set_state(self._parts["action_rng"])
        return None


def _of_a_rollout(state: TrainState) -> dict[str, Any]:
    now = {name: getattr(state, name) for name in ("obs", "memory", "starts")}
    return {**now, "action_rng": state.action_rng.get_state()}


def _copied(tree: Any) -> Any:
    """Nested dictionaries and lists with a copy of every tensor."""
    if isinstance(tree, Tensor):
        return tree.clone()
    if isinstance(tree, Mapping):
        return {key: _copied(value) for key, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, list | tuple) else tree
