"""Where the update under way began: what a stop or an error in the middle of it saves, and goes back to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ppo_lab.envs.contract import Envs
from ppo_lab.errors import EnvError
from ppo_lab.ppo.state import TrainState

SLOW = 0.5  # seconds of an update from which on all of it is copied: then that takes no time to speak of
AHEAD = "an environment failed in an update at whose beginning its memory of earlier episodes was not recorded"
BROKEN_OFF = "an update was broken off while it learned"


class Beginning:
    """The state at the beginning of an update.

    Of quick updates only what a rollout changes is copied, which takes some 15 microseconds: enough for an environment
    that fails. Of slow ones everything, so that training can stop in the middle of one and lose nothing.
    """

    def __init__(self, state: TrainState, envs: Envs, slow: bool) -> None:
        everything = state.state_dict() if slow else _of_a_rollout(state)
        self._parts: dict[str, Any] = _copied(everything)
        under_way = None if slow else getattr(envs, "episodes_under_way", None)
        # that of others may be made of the very tensors that the next step writes into
        self.envs: dict[str, Any] = _copied(getattr(envs, "state_dict", dict)()) if under_way is None else under_way()
        self.inexact_because = None if under_way is None else AHEAD
        gathered = getattr(envs, "numbers", None)
        self.numbers: dict[str, Any] = gathered.finished() if gathered is not None and gathered.wanted else {}
        self.whole, self._began = slow, time.monotonic()
        self.global_step = state.global_step

    def can_be_left(self, collecting: bool) -> bool:
        """The update can be left where it is: it takes long, and its beginning is known, as while collecting."""
        return (self.whole or collecting) and time.monotonic() - self._began > SLOW

    def tree(self, state: TrainState) -> dict[str, Any]:
        """What `state.state_dict()` was then; of a quick update, as long as it has not learned."""
        return {**state.state_dict(), **self._parts}

    def put_back(self, state: TrainState, envs: Envs, run_seed: int) -> str | None:
        """Everything as it was, after the update was broken off in its rollout or, if it is known as a whole, later.

        Returns why the run is not the same as without the failure, None if it is. New episodes begin where the old ones
        cannot be brought back. Raises EnvError if none can begin.
        """
        if self.whole:
            state.load_learner(self._parts)
            state.episodes.load_finished(self._parts["episodes"])
        load = getattr(envs, "load_state_dict", None)
        try:
            if load is None or not self.envs:
                raise EnvError("these environments cannot tell their state")
            load(self.envs)
        except EnvError as error:
            state.begin_episodes(envs, run_seed)
            state.episodes.forget_under_way()
            return str(error)
        if self.whole:
            state.load_experience(_copied(self._parts))
            state.load_random_numbers(self._parts)
        else:
            state.obs, state.memory, state.starts = (_copied(self._parts[name]) for name in ("obs", "memory", "starts"))
            state.action_rng.set_state(self._parts["action_rng"])
        return self.inexact_because


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
