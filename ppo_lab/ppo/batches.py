"""Split a rollout into minibatches: shuffled rows, or shuffled chunks of L steps for a recurrent model."""

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
    """B chunks of L steps: what the loss needs. L = 1 without memory."""

    obs: Obs  # (L, B, *obs)
    action: Tensor  # (L, B, *action)
    log_prob: Tensor  # (L, B) log pi_old(a|s), from the rollout
    value: Tensor  # (L, B) V_old(s), from the rollout
    advantage: Tensor  # (L, B)
    returns: Tensor  # (L, B)
    starts: Tensor  # (L, B) bool: obs is the first of an episode
    valid: Tensor | None = None  # (L, B) bool: False where the row is not a transition; None: all rows are
    memory: Memory = None  # (B, *memory) each: the recurrent state before the first step of the chunk
    inputs: Tensor | None = None  # (L, B, F) the input of the first layer, if it has been computed already

    def map(self, function: Callable[..., Any]) -> Batch:
        """Apply `function` to every column (L, B, ...). The result has neither `valid` nor `memory`."""
        obs = apply(function, self.obs)
        action, log_prob, value, advantage, returns, starts = map(
            function, (self.action, self.log_prob, self.value, self.advantage, self.returns, self.starts)
        )
        inputs = None if self.inputs is None else function(self.inputs)
        return Batch(obs, action, log_prob, value, advantage, returns, starts, inputs=inputs)

    def experience(self, rows: Tensor) -> Tensor:
        """Select the valid rows of rows (L, B, *x). Return (M, *x), or `rows` unchanged if all are valid."""
        return rows if self.valid is None else rows[self.valid]

    def split(self, parts: int) -> Iterator[tuple[Batch, float]]:
        """Split the batch into at most `parts` parts along B. Yield (part, its share of the valid rows)."""
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
    """Yield the minibatches of one pass over the rollout, which visit each valid row once, in random order.

    Without memory single rows are shuffled (L = 1), and invalid ones are left out. With memory whole chunks of L steps
    are shuffled. A chunk keeps the order of time, starts with the memory recorded in the rollout, and marks its valid
    rows in `valid`. The sizes of two minibatches differ by at most one row or chunk.

    advantage, returns: (T, N).
    normalize: scale advantages to mean 0 and std 1, over the rollout or in each minibatch.
    inputs: (T, N, F), see `Batch`; only without memory.
    """
    if normalize == "rollout":
        advantage = normalized(advantage, rollout.valid)
    each = normalize == "minibatch"
    if rollout.memory:
        count = len(next(iter(rollout.memory.values()))) * rollout.reward.shape[1]
        order = torch.randperm(count, generator=generator, device=rollout.reward.device)
        real = torch.stack([rollout.valid[rows].any(0) for _, rows in rollout.chunks()]).flatten()  # (count,)
        order = order[real[order]]  # leave out chunks without any valid row
        for part in order.tensor_split(min(num_minibatches, len(order))) if len(order) else ():
            batch = chunk_batch(rollout, advantage, returns, part)
            yield batch._replace(advantage=normalized(batch.advantage, batch.valid)) if each else batch
        return
    rows = rollout.valid.flatten().nonzero().squeeze(-1)  # (M,) of T * N
    order = rows[torch.randperm(len(rows), generator=generator, device=rows.device)]  # (M,)
    parts = min(num_minibatches, len(order))
    if parts == 0:
        return  # no valid row
    columns = _columns(rollout, advantage, returns)._replace(inputs=inputs)
    shuffled = columns.map(lambda column: column.flatten(0, 1).index_select(0, order))  # (M, ...)
    if each:
        shuffled = shuffled._replace(advantage=normalized_parts(shuffled.advantage, parts))
    cut = shuffled.map(lambda column: column.unsqueeze(0).tensor_split(parts, 1))  # (1, B, ...) each
    for i in range(parts):
        yield cut.map(itemgetter(i))


def whole(rollout: Rollout, advantage: Tensor, returns: Tensor) -> Batch:
    """Return the whole rollout as one batch, in order: (T, N) without memory, else all chunks along B.

    advantage, returns: (T, N).
    """
    if not rollout.memory:
        valid = None if rollout.valid.all() else rollout.valid
        return _columns(rollout, advantage, returns)._replace(valid=valid)
    count = len(next(iter(rollout.memory.values()))) * rollout.reward.shape[1]
    return chunk_batch(rollout, advantage, returns, torch.arange(count, device=rollout.reward.device))


def chunk_batch(rollout: Rollout, advantage: Tensor, returns: Tensor, chosen: Tensor) -> Batch:
    """Return the chunks `chosen` (B,) as a batch (L, B). A short chunk is padded with invalid rows.

    Chunk c of environment n has the number c * N + n. advantage, returns: (T, N).
    """
    T, N = rollout.reward.shape
    time = torch.arange(rollout.chunk_length, device=chosen.device)
    t = (chosen // N) * rollout.chunk_length + time.unsqueeze(-1)  # (L, B)
    inside = t < T
    index = t.clamp(max=T - 1) * N + chosen % N  # (L, B) of T * N
    batch = _columns(rollout, advantage, returns).map(lambda column: column.flatten(0, 1)[index])
    valid = rollout.valid.flatten()[index] & inside
    return batch._replace(
        starts=batch.starts & inside,  # no episode starts in the padding
        valid=None if valid.all() else valid,
        memory={key: kept.flatten(0, 1)[chosen] for key, kept in rollout.memory.items()},
    )


def _columns(rollout: Rollout, advantage: Tensor, returns: Tensor) -> Batch:
    """Return the rollout as a Batch with columns (T, N, ...)."""
    obs = at(rollout.obs, slice(0, len(rollout)))
    return Batch(obs, rollout.action, rollout.log_prob, rollout.value, advantage, returns, rollout.starts)
