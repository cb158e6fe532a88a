"""Cut a rollout into the minibatches of a pass: shuffled rows, or chunks of L steps where there is memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from ppo_lab.envs.contract import Obs
from ppo_lab.models.actor_critic import Memory
from ppo_lab.ppo.advantages import normalized, normalized_parts
from ppo_lab.ppo.rollout import Rollout
from ppo_lab.trees import apply, at

Normalize = Literal["minibatch", "rollout", "never"]


class Batch(NamedTuple):
    """B chunks of L steps. What the loss needs and no more."""

    obs: Obs  # (L, B, *obs)
    action: Tensor  # (L, B, *action)
    log_prob: Tensor  # (L, B) old
    value: Tensor  # (L, B) old
    advantage: Tensor  # (L, B)
    returns: Tensor  # (L, B)
    starts: Tensor  # (L, B) bool
    valid: Tensor | None = None  # (L, B) bool: False where the row is no experience; None: all are
    memory: Memory = None  # (B, *memory) each: before the first step of the chunk
    inputs: Tensor | None = None  # (L, B, F) obs as the first layer takes them, where they are known already

    def map(self, function: Callable[..., Any]) -> Batch:
        """Apply `function` to every column (L, B, ...); all rows then count as valid, without memory."""
        obs = apply(function, self.obs)
        action, log_prob, value, advantage, returns, starts = map(
            function, (self.action, self.log_prob, self.value, self.advantage, self.returns, self.starts)
        )
        inputs = None if self.inputs is None else function(self.inputs)
        return Batch(obs, action, log_prob, value, advantage, returns, starts, inputs=inputs)

    def experience(self, rows: Tensor) -> Tensor:
        """Select the valid rows of (L, B, *x): (M, *x), or `rows` unchanged where all are valid."""
        return rows if self.valid is None else rows[self.valid]

    def split(self, parts: int) -> Iterator[tuple[Batch, float]]:
        """Split the batch into at most `parts` parts along B, each with its share of the valid rows."""
        B = self.starts.shape[1]
        if parts == 1 or B == 1:
            yield self, 1.0
            return
        rows = self.starts.numel() if self.valid is None else int(self.valid.sum())
        for columns in torch.arange(B, device=self.starts.device).tensor_split(min(parts, B)):
            few = slice(int(columns[0]), int(columns[-1]) + 1)
            part = self.map(lambda column, few=few: column[:, few])
            part = part._replace(
                valid=None if self.valid is None else self.valid[:, few],
                memory=None if self.memory is None else at(self.memory, few),
            )
            size = part.starts.numel() if part.valid is None else int(part.valid.sum())
            if size:
                yield part, size / rows


def minibatches(
    rollout: Rollout,
    advantage: Tensor,
    returns: Tensor,
    num_minibatches: int,
    generator: Generator,
    normalize: Normalize = "never",
    inputs: Tensor | None = None,
) -> Iterator[Batch]:
    """Yield one pass over the rollout: each valid row once, in a new order, in parts whose sizes differ by at most one.

    Without memory the rows are shuffled one by one (L = 1), and those that are no experience left out. With memory
    whole chunks are: they keep the order of time, begin with the memory that the rollout had there, and say in `valid`
    which rows count.

    normalize: advantages to mean 0 and std 1, over the rollout or in each minibatch.
    inputs: (T, N, F), see `Batch`; without memory only.
    """
    if normalize == "rollout":
        advantage = normalized(advantage, rollout.valid)
    each = normalize == "minibatch"
    if rollout.memory:
        count = len(next(iter(rollout.memory.values()))) * rollout.reward.shape[1]
        order = torch.randperm(count, generator=generator, device=rollout.reward.device)
        real = torch.stack([rollout.valid[rows].any(0) for _, rows in rollout.chunks()]).flatten()  # (count,)
        order = order[real[order]]  # a chunk of nothing but resets has no mean
        for part in order.tensor_split(min(num_minibatches, len(order))) if len(order) else ():
            batch = chunk_batch(rollout, advantage, returns, part)
            yield batch._replace(advantage=normalized(batch.advantage, batch.valid)) if each else batch
        return
    rows = rollout.valid.flatten().nonzero().squeeze(-1)  # (M,) of T * N
    order = rows[torch.randperm(len(rows), generator=generator, device=rows.device)]  # (M,)
    parts = min(num_minibatches, len(order))
    if parts == 0:
        return  # every row was a reset
    columns = _columns(rollout, advantage, returns)._replace(inputs=inputs)
    shuffled = columns.map(lambda column: column.flatten(0, 1).index_select(0, order))  # (M, ...)
    if each:
        shuffled = shuffled._replace(advantage=normalized_parts(shuffled.advantage, parts))
    cut = shuffled.map(lambda column: column.unsqueeze(0).tensor_split(parts, 1))  # (1, B, ...) each
    for i in range(parts):
        yield cut.map(itemgetter(i))


def whole(rollout: Rollout, advantage: Tensor, returns: Tensor) -> Batch:
    """Return the whole rollout as one batch, in order: (T, N) without memory, else all chunks side by side."""
    if not rollout.memory:
        valid = None if rollout.valid.all() else rollout.valid
        return _columns(rollout, advantage, returns)._replace(valid=valid)
    count = len(next(iter(rollout.memory.values()))) * rollout.reward.shape[1]
    return chunk_batch(rollout, advantage, returns, torch.arange(count, device=rollout.reward.device))


def chunk_batch(rollout: Rollout, advantage: Tensor, returns: Tensor, chosen: Tensor) -> Batch:
    """Return the chunks `chosen` (B,), numbered c * N + n, as a batch (L, B); a short chunk is padded with invalid
    rows.
    """
    T, N = rollout.reward.shape
    time = torch.arange(rollout.chunk_length, device=chosen.device)
    t = (chosen // N) * rollout.chunk_length + time.unsqueeze(-1)  # (L, B)
    inside = t < T
    index = t.clamp(max=T - 1) * N + chosen % N  # (L, B) of T * N
    batch = _columns(rollout, advantage, returns).map(lambda column: column.flatten(0, 1)[index])
    valid = rollout.valid.flatten()[index] & inside
    return batch._replace(
        starts=batch.starts & inside,  # what fills up starts no episode
        valid=None if valid.all() else valid,
        memory={key: kept.flatten(0, 1)[chosen] for key, kept in rollout.memory.items()},
    )


def _columns(rollout: Rollout, advantage: Tensor, returns: Tensor) -> Batch:
    """Return the columns of a Batch as (T, N, ...)."""
    obs = at(rollout.obs, slice(0, len(rollout)))
    return Batch(obs, rollout.action, rollout.log_prob, rollout.value, advantage, returns, rollout.starts)
