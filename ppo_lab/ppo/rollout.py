"""Collect a rollout: T steps of N environments with the current policy, and the critic's values of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Generator, Tensor

from ppo_lab.envs.contract import Envs, Obs
from ppo_lab.envs.spaces import MASK_KEY
from ppo_lab.errors import NonFiniteError
from ppo_lab.models.actor_critic import ActorCritic, Memory
from ppo_lab.models.distributions import check_mask
from ppo_lab.trees import apply, at, copy, leaves, rows_of

BLOCK, ROWS = 2**22, 2048  # limits of `rows_at_once` on a CPU: bytes of observations, and rows


@dataclass
class Rollout:
    """T steps of N environments. The buffers are allocated once; the next `collect` overwrites them."""

    obs: Obs  # (T + 1, N, *obs) s_t, the observation that the policy acted on; row T is the next one
    final_obs: Obs  # (T, N, *obs) the observation after each action, before any reset
    action: Tensor  # (T, N, *action) as sampled from the policy, before it is mapped to the environment's range
    log_prob: Tensor  # (T, N) log pi_old(a_t | s_t)
    value: Tensor  # (T, N) V(s_t)
    next_value: Tensor  # (T, N) V(final_obs); of no meaning in terminated rows, where nothing reads it
    reward: Tensor  # (T, N) as the environment gave it
    terminated: Tensor  # (T, N) bool
    done: Tensor  # (T, N) bool: terminated or truncated
    valid: Tensor  # (T, N) bool: False where the row is not a transition (the environment was only reset)
    starts: Tensor  # (T, N) bool: obs is the first of an episode
    episode_done: Tensor  # (T, N) bool: the game is over; equals `done` unless a lost life counts as done (Atari)
    memory: dict[str, Tensor] = field(default_factory=dict)  # (ceil(T / L), N, *memory): before each chunk's first step
    chunk_length: int = 1  # L; 1 without memory

    @classmethod
    def empty(cls, num_steps: int, num_envs: int, obs: Obs, model: ActorCritic, chunk_length: int = 32) -> Rollout:
        """Allocate a rollout of T steps of N environments. obs: an example (N, *obs), for shapes, dtypes and device."""
        T, N, head = num_steps, num_envs, model.actor_head
        device = leaves(obs)[0].device

        def room(rows: int, like: Tensor) -> Tensor:
            return torch.zeros(rows, *like.shape, dtype=like.dtype, device=device)  # images stay uint8

        def number() -> Tensor:
            return torch.zeros(T, N, device=device)

        def flag() -> Tensor:
            return torch.zeros(T, N, dtype=torch.bool, device=device)

        memory = {key: like for key, like in (model.initial_memory(N) or {}).items() if key in model.recurrent}
        L = min(chunk_length, T) if memory else 1
        return cls(
            obs=apply(lambda like: room(T + 1, like), obs),
            final_obs=apply(lambda like: room(T, like), obs),
            action=torch.zeros(T, N, *head.action_shape, dtype=head.action_dtype, device=device),
            log_prob=number(), value=number(), next_value=number(), reward=number(),
            terminated=flag(), done=flag(), valid=flag(), starts=flag(), episode_done=flag(),
            memory={key: room(-(-T // L), like) for key, like in memory.items()},
            chunk_length=L,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.reward)

    def first_memory(self) -> Memory:
        """Return the recurrent state before row 0; None for a model without memory."""
        return at(self.memory, 0) or None

    def chunks(self) -> Iterator[tuple[int, slice]]:
        """Return an iterator over the chunks of L steps, as (number, slice of rows). The last may be shorter."""
        L = self.chunk_length
        return ((c, slice(c * L, min((c + 1) * L, len(self)))) for c in range(-(-len(self) // L)))


class Collecting(Protocol):
    """The part of the training state that `collect` reads and advances: what belongs to the environments."""

    obs: Obs  # (N, *obs) the current observations
    memory: Memory  # the recurrent state; None for a model without memory
    starts: Tensor  # (N,) bool: obs is the first of an episode
    action_rng: Generator


Asked = Callable[[], bool]  # called before every step; True: yield, so that the caller can interrupt the rollout
TakeSteps = Callable[[Envs, ActorCritic, Collecting, Rollout, Asked], Iterator[None]]


def never() -> bool:
    """Return False: do not yield (the default of `asked`)."""
    return False


def collect(envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout) -> None:
    """Fill `rollout` with the next T steps and advance `state`, in plain torch. The critic runs once, at the end.

    Raises NonFiniteError if an observation or a reward is NaN or infinite, EnvError if a mask leaves no legal action.
    """
    for _ in collect_stepwise(envs, model, state, rollout):
        pass


@torch.no_grad()
def collect_stepwise(
    envs: Envs,
    model: ActorCritic,
    state: Collecting,
    rollout: Rollout,
    steps: TakeSteps | None = None,
    asked: Asked = never,
) -> Iterator[None]:
    """Collect a rollout as a generator, which yields between two steps whenever `asked()` returns True.

    The next `next()` continues with the step that follows. steps: a replacement for `take_steps`, such as
    `Engine.take_steps`. Raises the same errors as `collect`.
    """
    before = state.memory
    copy(at(rollout.obs, 0), state.obs)
    yield from (steps or take_steps)(envs, model, state, rollout, asked)
    if envs.episode_done is None:
        rollout.episode_done.copy_(rollout.done)
    check_finite(rollout)
    after = estimate_values(model, rollout, before)
    if "critic" in rollout.memory:  # `take_steps` advances only the actor's memory
        state.memory = {**state.memory, "critic": after["critic"]}  # type: ignore[dict-item, index]  # neither is None


def take_steps(
    envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout, asked: Asked = never
) -> Iterator[None]:
    """Take T steps in all environments and record everything except the values: the reference, in torch.

    Yields before a step whenever `asked()` returns True. Raises EnvError if a mask leaves no legal action.
    """
    seen, led_to = rows_of(rollout.obs), rows_of(rollout.final_obs)
    columns = (
        rollout.action, rollout.log_prob, rollout.reward, rollout.terminated, rollout.done, rollout.valid,
        rollout.starts, rollout.episode_done,
    )  # fmt: skip
    # make the views of all rows once: this halves the cost of writing a row, compared with indexing at every step
    for t, row in enumerate(zip(*(column.unbind() for column in columns), strict=True)):
        row_action, log_prob, reward, terminated, done, valid, starts, episode_done = row
        if asked():
            yield
        for key, kept in rollout.memory.items():
            if t % rollout.chunk_length == 0:
                kept[t // rollout.chunk_length] = state.memory[key]  # type: ignore[index]  # not None with a memory
        obs = seen[t]  # (N, *obs)
        if model.masked and not envs.next_step_autoreset:
            check_mask(obs[MASK_KEY], model.actor_head.mask_layout)  # type: ignore[index]  # with masks, obs is a dict
        distribution, state.memory = model.step(obs, state.memory, state.starts)
        action = distribution.sample(state.action_rng)  # (N, *action)
        step = envs.step(model.to_env(action))
        if model.masked and envs.next_step_autoreset:  # only now `valid` is known: masks of reset rows are ignored
            check_mask(obs[MASK_KEY], model.actor_head.mask_layout, step.valid)  # type: ignore[index]  # a dict, too
        row_action.copy_(action)
        starts.copy_(state.starts)  # before `done` is written: with T = 1, state.starts is a view of that row
        log_prob.copy_(distribution.log_prob(action))
        reward.copy_(step.reward)
        terminated.copy_(step.terminated)
        torch.logical_or(step.terminated, step.truncated, out=done)
        valid.copy_(step.valid)
        if envs.episode_done is not None:
            episode_done.copy_(envs.episode_done)
        copy(led_to[t], step.final_obs)
        copy(seen[t + 1], step.obs)
        state.obs = seen[t + 1]
        # with next-step autoreset the row after an episode only resets, and the next episode starts one row later
        state.starts = ~valid if envs.next_step_autoreset else done


@torch.no_grad()
def estimate_values(model: ActorCritic, rollout: Rollout, memory: Memory) -> Memory:
    """Write V(s_t) and the value after each action to the rollout. Return the memory after the last row.

    memory: the recurrent state before row 0. Only the part that the critic uses is advanced.

    The value after an action is V(s_{t+1}), or V(final_obs) where the episode was truncated, because row t + 1 then
    belongs to the next episode. V(final_obs) is computed with the memory after row t, before the reset, and does not
    change the memory that is returned.
    """
    cut_off = rollout.done & ~rollout.terminated  # (T, N) truncated: bootstrap from final_obs, not from row t + 1
    value, next_value = rollout.value, rollout.next_value
    if not rollout.memory:
        both = _in_blocks(model.value, rollout.obs)  # (T + 1, N)
        value.copy_(both[:-1])
        next_value.copy_(both[1:])
        if cut_off.any():
            next_value[cut_off] = model.value(at(rollout.final_obs, cut_off))
        return memory
    led_to = torch.zeros_like(next_value)  # (T, N) V(final_obs) where truncated, 0 elsewhere
    for c, rows in rollout.chunks():
        if "critic" in rollout.memory:
            rollout.memory["critic"][c] = memory["critic"]  # type: ignore[index]  # not None for a recurrent model
        cut = cut_off[rows]  # (L, N)
        value[rows], memory, at_cut = model.critique(at(rollout.obs, rows), memory, rollout.starts[rows], cut)
        if cut.any():
            led_to[rows][cut] = model.value(at(at(rollout.final_obs, rows), cut), at_cut)
    following = torch.cat([value[1:], model.value(at(rollout.obs, -1), memory).unsqueeze(0)])  # (T, N)
    torch.where(cut_off, led_to, following, out=next_value)
    return memory


def _in_blocks(function: Callable[[Obs], Tensor], obs: Obs) -> Tensor:
    """Apply `function` to obs (T, N, *obs). Return (T, N).

    On a CPU this is done in blocks of rows, so that the activations stay in its cache.
    """
    T, N = leaves(obs)[0].shape[:2]
    most = rows_at_once(at(obs, 0))
    parts = -(-(T * N - most // 8) // most)  # no extra block for a few remaining rows
    if parts <= 1:
        return function(obs)
    rows = apply(lambda leaf: leaf.flatten(0, 1), obs)
    size = -(-T * N // parts)
    found = [function(at(rows, slice(first, first + size))) for first in range(0, T * N, size)]
    return torch.cat(found).unflatten(0, (T, N))


def rows_at_once(obs: Obs) -> int:
    """Return the number of rows to evaluate at once without gradient, for rows like those of obs (N, *obs).

    A block may be up to an eighth larger. There is no limit except on a CPU.
    """
    if leaves(obs)[0].device.type != "cpu":
        return sys.maxsize
    row = sum(leaf.nbytes for leaf in leaves(obs)) // len(leaves(obs)[0])
    return min(ROWS, max(1, BLOCK // max(1, row)))


def check_finite(rollout: Rollout) -> None:
    """Raise NonFiniteError if a reward or an observation is NaN or infinite; it names the environment and the step."""
    seen = [("observation", rows) for rows in (*leaves(rollout.obs), *leaves(rollout.final_obs))]
    for name, rows in (("reward", rollout.reward), *seen):
        if not rows.is_floating_point() or torch.isfinite(rows.sum()):
            continue  # the sum is a cheap first check; if finite numbers overflow it, the exact check below decides
        bad = ~torch.isfinite(rows.flatten(2)).all(-1) if rows.dim() > 2 else ~torch.isfinite(rows)
        if bad.any():
            t, n = bad.nonzero()[0].tolist()
            raise NonFiniteError(f"environment {n} gave a {name} that is not finite at step {t} of the rollout")
