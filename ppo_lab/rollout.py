"""Collect T steps of N environments under the policy as it is, and cut what was collected into minibatches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from ppo_lab.actor_critic import ActorCritic, Memory
from ppo_lab.envs import Envs
from ppo_lab.errors import NonFiniteError


@dataclass
class Rollout:
    """T steps of N environments. Preallocated once; the next `collect` writes over it."""

    obs: Tensor  # (T + 1, N, *obs) what the policy saw; row T is what it sees next
    final_obs: Tensor  # (T, N, *obs) what each action led to, before any reset
    action: Tensor  # (T, N, *action) as the policy drew it, before it was mapped for the environment
    log_prob: Tensor  # (T, N)
    value: Tensor  # (T, N) V(obs)
    next_value: Tensor  # (T, N) V(what the action led to), also where the environment then started anew
    reward: Tensor  # (T, N) as the environment gave it
    terminated: Tensor  # (T, N) bool
    done: Tensor  # (T, N) bool: terminated or truncated
    valid: Tensor  # (T, N) bool: False where the row is no experience
    starts: Tensor  # (T, N) bool: obs is the first of an episode

    @classmethod
    def empty(cls, num_steps: int, num_envs: int, obs: Tensor, model: ActorCritic) -> Rollout:
        """Room for T steps of N environments whose observations look like `obs` (N, *obs)."""
        T, N, device = num_steps, num_envs, obs.device
        head = model.actor_head
        numbers = [torch.zeros(T, N, device=device) for _ in range(4)]
        flags = [torch.zeros(T, N, dtype=torch.bool, device=device) for _ in range(4)]
        return cls(
            torch.zeros(T + 1, *obs.shape, dtype=obs.dtype, device=device),  # keeps the dtype: images stay uint8
            torch.zeros(T, *obs.shape, dtype=obs.dtype, device=device),
            torch.zeros(T, N, *head.action_shape, dtype=head.action_dtype, device=device),
            *numbers,
            *flags,
        )

    def __len__(self) -> int:
        return len(self.reward)


class Collecting(Protocol):
    """What `collect` reads and moves on: the part of the training state that belongs to the environments."""

    obs: Tensor  # (N, *obs) what the policy sees now
    memory: Memory
    starts: Tensor  # (N,) bool
    action_rng: Generator


@torch.no_grad()
def collect(envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout) -> None:
    """Fill `rollout` with the next T steps, and move `state` with them. Values come in one batch at the end.

    Raises NonFiniteError if an observation or a reward is NaN or infinite.
    """
    rollout.obs[0].copy_(state.obs)
    for t in range(len(rollout)):
        distribution, state.memory = model.step(rollout.obs[t], state.memory, state.starts)
        action = distribution.sample(state.action_rng)  # (N, *action)
        step = envs.step(model.to_env(action))
        rollout.action[t] = action
        rollout.log_prob[t] = distribution.log_prob(action)
        rollout.reward[t] = step.reward
        rollout.terminated[t] = step.terminated
        rollout.done[t] = step.terminated | step.truncated
        rollout.valid[t] = step.valid
        rollout.starts[t] = state.starts
        rollout.final_obs[t] = step.final_obs
        rollout.obs[t + 1] = step.obs
        state.obs = rollout.obs[t + 1]
        # with next-step autoreset the row after an ending is no experience, and the one after that starts the episode
        state.starts = ~rollout.valid[t] if envs.next_step_autoreset else rollout.done[t]
    check_finite(rollout)
    value = model.value(rollout.obs)  # (T + 1, N)
    rollout.value.copy_(value[:-1])
    rollout.next_value.copy_(value[1:])
    cut_off = rollout.done & ~rollout.terminated  # there row t + 1 is another episode: ask for what would have come
    if cut_off.any():
        rollout.next_value[cut_off] = model.value(rollout.final_obs[cut_off])


def check_finite(rollout: Rollout) -> None:
    """Raises NonFiniteError with environment and step of the rollout if a reward or an observation is not finite."""
    for name, rows in (("reward", rollout.reward), ("observation", rollout.obs), ("observation", rollout.final_obs)):
        if not rows.is_floating_point() or torch.isfinite(rows.sum()):
            continue  # a sum that overflows only costs the exact look below
        bad = ~torch.isfinite(rows.flatten(2)).all(-1) if rows.dim() > 2 else ~torch.isfinite(rows)
        if bad.any():
            t, n = bad.nonzero()[0].tolist()
            raise NonFiniteError(f"environment {n} gave a {name} that is not finite at step {t} of the rollout")


class Batch(NamedTuple):
    """B rows as chunks of length L, shuffled. What the loss needs and no more."""

    obs: Tensor  # (L, B, *obs)
    action: Tensor  # (L, B, *action)
    log_prob: Tensor  # (L, B) old
    value: Tensor  # (L, B) old
    advantage: Tensor  # (L, B)
    returns: Tensor  # (L, B)
    starts: Tensor  # (L, B) bool


def minibatches(
    rollout: Rollout, advantage: Tensor, returns: Tensor, num_minibatches: int, generator: Generator
) -> Iterator[Batch]:
    """One pass over the rollout: every valid row once, in a new order, in parts whose sizes differ by at most one.

    Feed-forward chunks have length L = 1. Rows that are no experience are left out.
    """
    T, _N = rollout.reward.shape
    columns = Batch(
        rollout.obs[:T], rollout.action, rollout.log_prob, rollout.value, advantage, returns, rollout.starts
    )
    rows = rollout.valid.flatten().nonzero().squeeze(-1)  # (M,) of T * N
    order = rows[torch.randperm(len(rows), generator=generator, device=rows.device)]  # (M,)
    shuffled = [column.flatten(0, 1).index_select(0, order) for column in columns]  # (M, ...)
    parts = min(num_minibatches, len(order))
    if parts == 0:
        return  # every row was a reset
    for part in zip(*(column.unsqueeze(0).tensor_split(parts, dim=1) for column in shuffled), strict=True):
        yield Batch(*part)  # (1, B, ...)
