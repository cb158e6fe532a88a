"""Whole sequences through a recurrent network, with episode starts in the middle and no loop over time.

A chunk (L, B) is cut at its episode starts into segments. A segment needs nothing from the one before it, so all of
them go through the network side by side, as columns: packed (`torch.nn.utils.rnn.PackedSequence`, no row is wasted) or
padded in groups of similar length. Or its columns stay whole and a row that clears the memory is spliced in before
each start. A row is known by its place t * B + b in the chunk flattened time first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Indices = NDArray[np.int64]

# What a call with S columns of M steps costs, in rows: M * (S + STEP) + CALL. A compromise: fits to oneDNN's LSTM,
# forward and backward on one thread, gave a CALL of 88, 55 and 24 rows for 64, 128 and 256 units (docs/log.md).
STEP = 1
CALL = 40


class SequenceResult(NamedTuple):
    """What a core made of a chunk."""

    features: Tensor  # (L, B, H)
    memory: Tensor  # (B, *memory) after the last row
    at_ends: Tensor  # (E, *memory) after each row where `ends` is True, in the order of ends.nonzero()


class Core(Protocol):
    """A memory on top of a body: features now, from inputs now and before. All cores are `nn.Module`s too."""

    num_features: int

    def initial(self, num_envs: int) -> Tensor:
        """Return the memory at the start of an episode: zeros (N, *memory)."""

    def step(self, x: Tensor, memory: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step: x (N, F), memory (N, *memory), starts (N,) bool -> features (N, H), the memory after it."""

    def features(self, x: Tensor, memory: Tensor, starts: Tensor) -> Tensor:
        """Compute x (L, B, F), memory (B, *memory) before row 0, starts (L, B) bool -> features (L, B, H), the
        cheapest way.
        """

    def sequence(self, x: Tensor, memory: Tensor, starts: Tensor, ends: Tensor | None) -> SequenceResult:
        """Compute the same with the memory after the last row and after the rows in `ends` (L, B) bool."""


def run_core(core: Core, x: Tensor, memory: Tensor, starts: Tensor, ends: Tensor | None = None) -> SequenceResult:
    """Pass a chunk of L steps of B environments through a core.

    x (L, B, F); memory (B, *memory) before row 0; starts (L, B) bool: the row begins an episode, so the memory before
    it is the initial one; ends (L, B) bool: rows after which the memory is wanted too (any rows, None: no row).
    Where gradients are wanted and memories are not, `core.features(x, memory, starts)` is cheaper.
    """
    if len(x) > 1:
        return core.sequence(x, memory, starts, ends)
    features, after = core.step(x[0], memory, starts[0])
    return SequenceResult(features.unsqueeze(0), after, after[:0] if ends is None else after[ends[0]])


def fresh(memory: Tensor, starts: Tensor) -> Tensor:
    """Set memory (N, *memory) to zeros, the initial memory, where `starts` (N,) is True."""
    return memory.masked_fill(starts.view(-1, *[1] * (memory.dim() - 1)), 0.0)


@dataclass(frozen=True)
class Segments:
    """The columns a chunk was cut into, longest first: column i holds the rows first[i] + k * B for k < length[i]."""

    shape: tuple[int, int]  # (L, B) of the chunk
    first: Indices  # (S,) place t * B + b of its first row
    length: Indices  # (S,) not increasing
    last_of_env: Indices  # (B,) the column with the last row of environment b
    at_ends: Indices  # (E,) the column whose last row is the e-th of ends.nonzero()

    @property
    def env(self) -> Indices:
        """(S,) the environment of each column."""
        return self.first % self.shape[1]

    @property
    def begins(self) -> NDArray[np.bool_]:
        """(S,) True: the column begins with row 0 of the chunk, so with the chunk's memory and not the initial one."""
        return self.first < self.shape[1]

    def rows(self, columns: slice, steps: int) -> tuple[Indices, NDArray[np.bool_]]:
        """Place of the row at each step of these columns, and whether it is one, both (steps, columns).

        Behind the end of a column its last row is repeated, so that padding never mixes columns.
        """
        step, length = np.arange(steps)[:, None], self.length[columns]
        return self.first[columns] + np.minimum(step, length - 1) * self.shape[1], step < length

    def groups(self) -> list[slice]:
        """Group columns of similar length, so that padding them costs least (see `cost`)."""
        return _split(self.length, 0)


class Spliced(NamedTuple):
    """A chunk with a row before each start in its middle, for a network that a row can tell to forget."""

    source: Indices  # (M, B) place of each row in the chunk; L * B for those that clear, and behind the end of a column
    place: Indices  # (L, B) where each row of the chunk went, m * B + b


def splice(starts: Tensor) -> Spliced:
    """Lengthen a chunk by as many rows as the column with most starts in its middle has: starts (L, B) bool."""
    L, B = starts.shape
    middle = starts.numpy().copy()
    middle[0] = False  # the memory before row 0 is cleared by itself
    before = middle.cumsum(0)  # (L, B) rows spliced in up to there
    place = (np.arange(L)[:, None] + before) * B + np.arange(B)
    source = np.full((L + int(before[-1].max()), B), L * B)
    source.reshape(-1)[place] = np.arange(L * B).reshape(L, B)
    return Spliced(source, place)


def cost(steps: int | Indices, columns: int | Indices) -> Any:
    """Return what a call with that many steps of that many columns costs, in rows (see STEP and CALL)."""
    return steps * (columns + STEP) + CALL


def cut(starts: Tensor, ends: Tensor | None = None) -> Segments:
    """Cut a chunk into segments: starts and ends (L, B) bool. On a GPU this waits for the device to know the lengths.

    A column ends before a start, so the memory after it is at hand. An end elsewhere (before the reset row of a
    next-step autoreset, say) gets a column of its own: a copy of its segment up to there.
    """
    L, B = starts.shape
    begins = starts.cpu().numpy().T.copy()  # (B, L): the rows of an environment lie side by side
    begins[:, 0] = True
    flat = begins.reshape(-1)
    first = np.flatnonzero(flat)  # (S,) as b * L + t
    length = np.diff(first, append=B * L)
    last_of_env = np.cumsum(begins.sum(1)) - 1
    at_ends = np.zeros(0, dtype=np.int64)
    if ends is not None:
        time, env = np.nonzero(ends.cpu().numpy())
        place = env * L + time
        at_ends = (np.cumsum(flat) - 1)[place]
        inside = np.flatnonzero(place < first[at_ends] + length[at_ends] - 1)
        extra_first = first[at_ends[inside]]
        at_ends[inside] = len(first) + np.arange(len(inside))
        first = np.concatenate([first, extra_first])
        length = np.concatenate([length, place[inside] - extra_first + 1])
    order = np.argsort(-length, kind="stable")
    column = np.empty_like(order)
    column[order] = np.arange(len(order))  # where each segment went
    first = first % L * B + first // L  # b * L + t -> t * B + b
    return Segments((L, B), first[order], length[order], column[last_of_env], column[at_ends])


def round_up(size: int) -> int:
    """Return the next number with at most three significant bits: 1 to 8, 10, 12, 14, 16, 20, ...

    oneDNN compiles a kernel for each shape that it meets (a millisecond or more) and keeps the last thousand or so.
    """
    unit = 1 << max(size.bit_length() - 3, 0)
    return -(-size // unit) * unit


def _split(length: Indices, offset: int) -> list[slice]:
    """Cut the columns in two where that pays most, and each part again."""
    count = len(length)
    whole = cost(length[0], count)
    if count > 1:
        left = np.arange(1, count)
        parts = cost(length[0], left) + cost(length[1:], count - left)
        best = int(parts.argmin())
        if parts[best] < whole:
            at = best + 1
            return _split(length[:at], offset) + _split(length[at:], offset + at)
    return [slice(offset, offset + count)]


def index(places: Indices, device: torch.device) -> Tensor:
    """Convert NumPy indices to a tensor on the device."""
    return torch.from_numpy(places).to(device)
