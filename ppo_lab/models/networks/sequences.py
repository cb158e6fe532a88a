"""Preparation of whole sequences for a recurrent network: episodes may start in the middle, with no loop over time.

A chunk (L, B) is cut into segments at its episode starts. A segment does not depend on the one before it, so the
network computes all of them side by side, as columns: packed (`torch.nn.utils.rnn.PackedSequence`, which wastes no row)
or padded in groups of similar length. Alternatively, the columns stay whole and a row that clears the memory is
inserted before each start. A row is identified by its place t * B + b in the chunk, flattened time first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Indices = NDArray[np.int64]

# The cost of a call with S columns of M steps, in rows: M * (S + STEP) + CALL. A compromise: fits to oneDNN's LSTM,
# forward and backward on one thread, gave a CALL of 88, 55 and 24 rows for 64, 128 and 256 units (docs/log.md).
STEP = 1
CALL = 40


class SequenceResult(NamedTuple):
    """The output of a core for a chunk of L steps of B environments."""

    features: Tensor  # (L, B, H)
    memory: Tensor  # (B, *memory) after the last row
    at_ends: Tensor  # (E, *memory) after each row where `ends` is True, in the order of ends.nonzero()


class Core(Protocol):
    """A layer with memory on top of a body: its features depend on the inputs of this step and of earlier ones.

    All cores are `nn.Module`s too.
    """

    num_features: int

    def initial(self, num_envs: int) -> Tensor:
        """Return the memory at the start of an episode: zeros (N, *memory)."""

    def step(self, x: Tensor, memory: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step: x (N, F), memory (N, *memory), starts (N,) bool -> features (N, H), the memory after it."""

    def features(self, x: Tensor, memory: Tensor, starts: Tensor) -> Tensor:
        """Compute the features of a chunk, but not the memory after it.

        x (L, B, F), memory (B, *memory) before row 0, starts (L, B) bool -> features (L, B, H).
        """

    def sequence(self, x: Tensor, memory: Tensor, starts: Tensor, ends: Tensor | None) -> SequenceResult:
        """Compute a chunk's features, and the memory after its last row and after the rows in `ends`, (L, B) bool."""


def run_core(core: Core, x: Tensor, memory: Tensor, starts: Tensor, ends: Tensor | None = None) -> SequenceResult:
    """Pass a chunk of L steps of B environments through a core.

    x (L, B, F); memory (B, *memory) before row 0; starts (L, B) bool: the row begins an episode, so the memory before
    it is the initial one; ends (L, B) bool: any rows after which the memory is returned as well (None: no row).
    If only the features are needed, `core.features(x, memory, starts)` is cheaper.
    """
    if len(x) > 1:
        return core.sequence(x, memory, starts, ends)
    features, after = core.step(x[0], memory, starts[0])
    return SequenceResult(features.unsqueeze(0), after, after[:0] if ends is None else after[ends[0]])


def fresh(memory: Tensor, starts: Tensor) -> Tensor:
    """Return memory (N, *memory) with zeros, the initial memory, where `starts` (N,) is True."""
    return memory.masked_fill(starts.view(-1, *[1] * (memory.dim() - 1)), 0.0)


@dataclass(frozen=True)
class Segments:
    """The columns of a chunk after cutting, longest first.

    Column i holds the rows first[i] + k * B for k < length[i].
    """

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
        """Return the place of the row at each step of these columns, and whether it is real, both (steps, columns).

        After the end of a column its last row is repeated, so that padding never mixes columns.
        """
        step, length = np.arange(steps)[:, None], self.length[columns]
        return self.first[columns] + np.minimum(step, length - 1) * self.shape[1], step < length

    def groups(self) -> list[slice]:
        """Group columns of similar length, so that padding them costs least (see `cost`)."""
        return _split(self.length, 0)


class Spliced(NamedTuple):
    """A chunk with an extra row before each start in its middle, for a network whose memory such a row can clear."""

    source: Indices  # (M, B) place of each row in the chunk; L * B for extra rows and after the end of a column
    place: Indices  # (L, B) the new place of each row of the chunk, m * B + b


def splice(starts: Tensor) -> Spliced:
    """Insert an extra row before each start in the middle of a chunk: starts (L, B) bool.

    The chunk gets longer by the number of such starts in the column with the most.
    """
    L, B = starts.shape
    middle = starts.numpy().copy()
    middle[0] = False  # `fresh` clears the memory before row 0
    before = middle.cumsum(0)  # (L, B) extra rows up to there
    place = (np.arange(L)[:, None] + before) * B + np.arange(B)
    source = np.full((L + int(before[-1].max()), B), L * B)
    source.reshape(-1)[place] = np.arange(L * B).reshape(L, B)
    return Spliced(source, place)


def cost(steps: int | Indices, columns: int | Indices) -> Any:
    """Return the cost of a call with so many steps of so many columns, in rows (see STEP and CALL)."""
    return steps * (columns + STEP) + CALL


def cut(starts: Tensor, ends: Tensor | None = None) -> Segments:
    """Cut a chunk into segments: starts and ends (L, B) bool. On a GPU this waits for the device to get the lengths.

    A column ends before a start, so the memory after it is known. An end elsewhere (such as before the reset row of a
    next-step autoreset) gets a column of its own: a copy of its segment up to there.
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
    column[order] = np.arange(len(order))  # the column of each segment
    first = first % L * B + first // L  # b * L + t -> t * B + b
    return Segments((L, B), first[order], length[order], column[last_of_env], column[at_ends])


def round_up(size: int) -> int:
    """Return the next number with at most three significant bits: 1 to 8, 10, 12, 14, 16, 20, ...

    oneDNN compiles a kernel for each new shape (a millisecond or more) and caches about the last thousand.
    """
    unit = 1 << max(size.bit_length() - 3, 0)
    return -(-size // unit) * unit


def _split(length: Indices, offset: int) -> list[slice]:
    """Split the columns, of which the first is number `offset`, in two where that saves most, and each part again."""
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
