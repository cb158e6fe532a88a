"""Probe environments, small enough that their values can be derived on paper.

After Andy Jones, "Debugging RL, without the agonizing pain" (2021). Each tests one thing more than those before it, so
the first probe that does not reach its values shows where the bug is.

| probe                   | what must work                                    |
|-------------------------|---------------------------------------------------|
| `ValueOnly`             | the critic's loss and its optimizer               |
| `ObsDependentValue`     | observations that reach the critic                |
| `DiscountedReward`      | discounting, advantage and target over time       |
| `ActionDependentReward` | the policy's loss, its sign, actions that arrive  |
| `ObsAndActionReward`    | observation and action of the same row together   |
| `TwoState`              | bootstrapping at a truncation                     |

Every observation is (1,) float32, every action Discrete. Reset: a random start state where there is more than one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ppo_lab.envs import Envs, Step
from ppo_lab.errors import EnvError


@dataclass(frozen=True)
class Table:
    """A Markov decision process of S states and A actions, in tables."""

    obs: tuple[float, ...]  # (S,)
    reward: tuple[tuple[float, ...], ...]  # (S, A)
    next_state: tuple[int, ...]  # (S,) the same for every action
    terminates: tuple[bool, ...]  # (S,) the step out of this state terminates the episode
    start: tuple[int, ...]  # equally likely start states; one that is listed twice is twice as likely
    values: Callable[[float], tuple[float, ...]]  # gamma -> (S,) values of the best policy, derived on paper
    max_episode_steps: int | None = None


class Probe(Envs):
    """N copies of a table as `ppo_lab.envs.Envs`, with same-step reset. The probes below are its tables.

    Args:
        num_envs: N.
        device: Device of all tensors.
        max_episode_steps: Steps after which an episode is truncated; None: as in the table.

    Raises:
        EnvError: num_envs or max_episode_steps below 1.
    """

    table: Table
    capturable = True

    def __init__(self, num_envs: int, device: str | torch.device = "cpu", max_episode_steps: int | None = None) -> None:
        table, name = self.table, type(self).__name__
        limit = table.max_episode_steps if max_episode_steps is None else max_episode_steps
        if num_envs < 1 or (limit is not None and limit < 1):
            raise EnvError(f"{name}: num_envs={num_envs}, max_episode_steps={limit}; both must be >= 1")
        self.num_envs, self.device, self.max_episode_steps = num_envs, torch.device(device), limit
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(len(table.reward[0]))
        self.generator = torch.Generator(self.device)
        self._obs = torch.tensor(table.obs, device=self.device)[:, None]  # (S, 1)
        self._reward = torch.tensor(table.reward, device=self.device)  # (S, A)
        self._next = torch.tensor(table.next_state, device=self.device)
        self._terminates = torch.tensor(table.terminates, device=self.device)
        self._start = torch.tensor(table.start, device=self.device)
        self._limit = torch.iinfo(torch.int64).max if limit is None else limit
        self._state = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._elapsed = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._valid = torch.ones(num_envs, dtype=torch.bool, device=self.device)

    @classmethod
    def known_values(cls, gamma: float) -> list[tuple[Tensor, float]]:
        """List (observation (1,), value under the best policy at discount `gamma`), one pair per state."""
        return [(torch.tensor([o]), v) for o, v in zip(cls.table.obs, cls.table.values(gamma), strict=True)]

    @property
    def obs(self) -> Tensor:
        """The observation (N, 1) to act on next."""
        return self._obs[self._state]

    def reset(self, seed: int) -> Tensor:
        """Start N new episodes; equal seeds give equal episodes. Returns obs (N, 1)."""
        self.generator.manual_seed(seed)
        self._state.copy_(self._draw_start())
        self._elapsed.zero_()
        return self.obs

    def step(self, action: Tensor) -> Step:
        """Step every copy: action (N,) int64."""
        reward, led_to = self._reward[self._state, action], self._next[self._state]
        terminated = self._terminates[self._state]
        self._elapsed += 1
        truncated = self._elapsed >= self._limit
        done = terminated | truncated
        self._state.copy_(torch.where(done, self._draw_start(), led_to))
        self._elapsed.masked_fill_(done, 0)
        return Step(self.obs, reward, terminated, truncated, self._obs[led_to], self._valid)

    def _draw_start(self) -> Tensor:
        pick = torch.randint(len(self._start), (self.num_envs,), generator=self.generator, device=self.device)
        return self._start[pick]

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything the next step depends on: `state` (N,), `elapsed` (N,), `generator`."""
        state, elapsed = self._state.clone(), self._elapsed.clone()
        return {"state": state, "elapsed": elapsed, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict` as if never stopped. Raises EnvError if it does not fit."""
        if not {"state", "elapsed", "generator"} <= state.keys() or state["state"].shape != self._state.shape:
            raise EnvError(f"{type(self).__name__} state: needs 'state' and 'elapsed' of {self.num_envs}, 'generator'")
        self._state.copy_(state["state"])
        self._elapsed.copy_(state["elapsed"])
        self.generator.set_state(state["generator"].cpu())

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class ValueOnly(Probe):
    """One state, one action, one step, reward 1: V = 1."""

    table = Table(
        obs=(0.0,), reward=((1.0,),), next_state=(0,), terminates=(True,), start=(0,), values=lambda gamma: (1.0,)
    )


class ObsDependentValue(Probe):
    """Observation -1 or +1 at random, one action, one step, reward = observation: V(-1) = -1, V(+1) = 1."""

    table = Table(
        obs=(-1.0, 1.0),
        reward=((-1.0,), (1.0,)),
        next_state=(0, 1),
        terminates=(True, True),
        start=(0, 1),
        values=lambda gamma: (-1.0, 1.0),
    )


class DiscountedReward(Probe):
    """Observation 0 then 1, one action, two steps, reward 0 then 1: V(0) = gamma, V(1) = 1."""

    table = Table(
        obs=(0.0, 1.0),
        reward=((0.0,), (1.0,)),
        next_state=(1, 1),
        terminates=(False, True),
        start=(0,),
        values=lambda gamma: (gamma, 1.0),
    )


class ActionDependentReward(Probe):
    """One state, one step, reward -1 for action 0 and +1 for action 1: the policy learns action 1, and V -> 1."""

    table = Table(
        obs=(0.0,), reward=((-1.0, 1.0),), next_state=(0,), terminates=(True,), start=(0,), values=lambda gamma: (1.0,)
    )


class ObsAndActionReward(Probe):
    """Observation -1 or +1 at random, one step, reward +1 where the action (0 for -1, 1 for +1) matches, else -1.

    The policy learns to match, and V -> 1 for both observations.
    """

    table = Table(
        obs=(-1.0, 1.0),
        reward=((1.0, -1.0), (-1.0, 1.0)),
        next_state=(0, 1),
        terminates=(True, True),
        start=(0, 1),
        values=lambda gamma: (1.0, 1.0),
    )


class TwoState(Probe):
    """A (observation -1) and B (+1) alternate; leaving A pays 1, B 0. Truncated after 3 steps, never terminated.

    V(A) = 1 / (1 - gamma^2), V(B) = gamma V(A): 5.263 and 4.737 at gamma 0.9, wherever the episodes are truncated.
    Start: A three times in four, so that the mean value after a reset is neither V(s_t) nor V(s_t+1) there. At gamma
    0.9 and gae_lambda 0.95 the critic converges to (exact expectations, verified by a test):

    | what the code does at a truncation                                         |  V(A) |  V(B) |
    |----------------------------------------------------------------------------|-------|-------|
    | V(final_obs) as bootstrap, trace cut: right                                | 5.263 | 4.737 |
    | no bootstrap: truncation treated as termination                            | 1.355 | 0.738 |
    | V(s_t) as bootstrap                                                        | 6.691 | 5.897 |
    | V(reset observation) as bootstrap, trace cut                               | 6.512 | 5.876 |
    | V(reset observation) as bootstrap, trace not cut: episodes concatenated    | 6.097 | 5.464 |

    A trace that is not cut has no effect while the bootstrap is right: at the true values every temporal difference is
    0, in any episode. That bug shows earlier: with V = 0 and the rows A B A, B A B the first advantage is 2.265 instead
    of 1.731.
    """

    table = Table(
        obs=(-1.0, 1.0),
        reward=((1.0,), (0.0,)),
        next_state=(1, 0),
        terminates=(False, False),
        start=(0, 0, 0, 1),
        values=lambda gamma: (1 / (1 - gamma**2), gamma / (1 - gamma**2)),
        max_episode_steps=3,
    )


PROBES: tuple[type[Probe], ...] = (
    ValueOnly,
    ObsDependentValue,
    DiscountedReward,
    ActionDependentReward,
    ObsAndActionReward,
    TwoState,
)
