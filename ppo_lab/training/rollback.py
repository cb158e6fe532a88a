"""The state at the start of an update: saved when training stops in the middle of one, restored after an error."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ppo_lab.envs.contract import Envs
from ppo_lab.errors import EnvError
from ppo_lab.ppo.state import TrainState

SLOW = 0.5  # seconds: before an update that takes longer the whole state is copied, which then costs little
AHEAD = "an environment failed in an update, and its memory of earlier episodes was not saved before that update"
BROKEN_OFF = "an update was interrupted while it learned"


class Rollback:
    """A copy of the state at the start of an update.

    Before a quick update only what a rollout changes is copied (about 15 microseconds): enough if an environment
    fails. Before a slow one everything is copied, so that training can stop in the middle of it and lose nothing.
    """

    def __init__(self, state: TrainState, envs: Envs, slow: bool) -> None:
        everything = state.state_dict() if slow else _of_a_rollout(state)
        self._parts: dict[str, Any] = _copied(everything)
        under_way = None if slow else envs.episodes_under_way()
        # copied: a state_dict may consist of tensors that the next step overwrites
        self.envs: dict[str, Any] = _copied(envs.state_dict() or {}) if under_way is None else under_way
        self.inexact_because = None if under_way is None else AHEAD
        self.env_metrics = envs.metrics_state()
        self.whole, self._began = slow, time.monotonic()
        self.global_step = state.global_step

    def can_be_left(self, collecting: bool) -> bool:
        """Return whether the update can be left in the middle: it is slow, and its start can be restored."""
        return (self.whole or collecting) and time.monotonic() - self._began > SLOW

    def tree(self, state: TrainState) -> dict[str, Any]:
        """Return `state.state_dict()` as of the start; for a quick update, valid before its first gradient step."""
        return {**state.state_dict(), **self._parts}

    def put_back(self, state: TrainState, envs: Envs, run_seed: int) -> str | None:
        """Restore the state after a failure in the rollout or, where everything was copied, later in the update.

        Return why the run now differs from a run without the failure; None if it does not. New episodes begin if the
        old ones cannot be restored. Raise EnvError if that fails too.
        """
        if self.whole:
            state.load_learner(self._parts)
            state.episodes.load_finished(self._parts["episodes"])
        try:
            if not self.envs:
                raise EnvError("these environments cannot save their state")
            envs.load_state_dict(self.envs)
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
    """Copy nested dictionaries and lists with all tensors."""
    if isinstance(tree, Tensor):
        return tree.clone()
    if isinstance(tree, Mapping):
        return {key: _copied(value) for key, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, list | tuple) else tree
