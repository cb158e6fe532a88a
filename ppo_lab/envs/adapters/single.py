"""Step single Gymnasium environments in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch

from ppo_lab.envs.adapters.episode_numbers import EpisodeNumbers
from ppo_lab.envs.adapters.info import InfoKeys
from ppo_lab.envs.adapters.loop import EnvLoop
from ppo_lab.envs.adapters.maker import time_limit
from ppo_lab.envs.adapters.replay import ActionLog, Replayed, recipe_from
from ppo_lab.envs.adapters.rows import empty_rows
from ppo_lab.envs.adapters.running_statistics import find_statistics
from ppo_lab.envs.adapters.steps import action_format, as_numpy, as_step, on_device, to
from ppo_lab.envs.checks import check_spaces
from ppo_lab.envs.contract import Action, Obs, Step
from ppo_lab.envs.spaces import flatten_space, map_leaves
from ppo_lab.errors import EnvError, one_line


class SingleEnvs(Replayed):
    """N single Gymnasium environments, stepped one after the other in this process.

    Same-step autoreset with exact final observations; each episode has its own seed (`loop.episode_seed`). On a CPU
    `step` returns the same Step each time and the next call overwrites it: the caller copies what it keeps.
    """

    def __init__(
        self,
        envs: Sequence[gymnasium.Env],
        device: torch.device | str = "cpu",
        make: Callable[[int], gymnasium.Env] | None = None,
        retry: int = 0,
        info_keys: InfoKeys = (),
    ) -> None:
        """Take ownership of the environments: `close` closes them.

        make, retry: how to recreate one that raises, and how often in a row (see `EnvLoop`).
        info_keys: as `EnvConfig.info_keys`, for `metrics`. Raises EnvError if spaces are unsupported or not all equal.
        """
        if not envs:
            raise EnvError("at least one environment is needed, got none")
        self.num_envs = len(envs)
        observation_space, action_space = envs[0].observation_space, envs[0].action_space
        check_spaces(observation_space, action_space, _named(envs[0]))
        self.observation_space = flatten_space(observation_space)
        self.action_space = flatten_space(action_space)
        self.max_episode_steps = time_limit(envs[0])
        self.running_statistics = find_statistics(envs[0])
        self.device = torch.device(device)
        for i, env in enumerate(envs):
            if env.observation_space != observation_space or env.action_space != action_space:
                spaces = f"{env.observation_space} and {env.action_space}"
                raise EnvError(f"environment {i} has other spaces than environment 0: {one_line(spaces)}")
        self._rows = rows = empty_rows(self.num_envs, self.observation_space, len(info_keys))
        self._action_format = action_format(self.num_envs, self.action_space)
        self._step = as_step(rows, np.ones(self.num_envs, np.bool_))
        self._loop, self._info = EnvLoop(envs, rows, 0, make, retry, [key for key, _ in info_keys]), rows.info
        self.numbers = EpisodeNumbers(info_keys, self.num_envs)
        self.numbers.there = self._loop.infos.there
        self._log = ActionLog(self.num_envs, self._action_format)

    def reset(self, seed: int) -> Obs:
        """Start all N episodes from one run seed; return the first observations (N, *obs)."""
        self._loop.reset(seed)
        self._tell_renewals()
        self._log.reset(seed)
        self.numbers.begin()
        return to(self._step.obs, self.device)

    def step(self, action: Action) -> Step:
        """Act once in each environment: action is (N,) for Discrete, (N, *shape) for others, a dictionary for Dict.

        Raises EnvError or NonFiniteError that name the environment and its step; after that only `reset` is possible.
        """
        array = as_numpy(action, self._action_format)
        self._loop.step(array.copy() if isinstance(array, np.ndarray) else map_leaves(np.copy, array))
        self._tell_renewals()
        rows = self._rows
        self._log.record(array, rows.reward, rows.terminated | rows.truncated)
        if self.numbers.wanted:
            self.numbers.take(self._info, self._step.terminated | self._step.truncated)
        return on_device(self._step, self.device)

    def state_dict(self) -> dict[str, Any] | None:
        """Return seeds, episode numbers, the actions to replay the current episodes, and what outlives episodes."""
        state = self.episodes_under_way()
        return {**state, "$remembered": self._loop.remember()} if state else None

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Replay the current episodes. Raises EnvError if a replay does not end in the saved observation."""
        self._loop.restore(recipe_from(saved))
        self._tell_renewals()
        self._log.load(saved)
        self.numbers.load(saved)

    def _tell_renewals(self) -> None:
        if self._loop.retries.texts:
            self._take_renewals(self._loop.retries.texts)

    def close(self) -> None:
        """Close the environments. Twice is harmless."""
        self._loop.close()


def _named(env: gymnasium.Env) -> str:
    """Format an environment for a message: <CartPoleEnv<CartPole-v1>>."""
    try:
        return one_line(env, 80)
    except Exception:  # Gymnasium's repr reads the spec, which may be a property that raises
        return type(env).__name__
