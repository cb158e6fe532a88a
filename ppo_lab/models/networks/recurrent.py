"""GRU and LSTM cores: single cells for a step of the rollout, torch's sequence kernels for longer chunks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ppo_lab.models.networks.sequences import (
    Segments,
    SequenceResult,
    Spliced,
    cost,
    cut,
    fresh,
    index,
    round_up,
    splice,
)

GATES = {"gru": 3, "lstm": 4}
SHUT = 1e4  # far larger than what inputs and memory contribute to a gate


class Recurrent(nn.Module):
    """A GRU or LSTM core: x (*, num_inputs) and memory -> features (*, size).

    Memory: GRU (N, layers, size), the hidden states; LSTM (N, layers, 2 size), hidden and cell states side by side.

    GRU (Cho et al. 2014, as in cuDNN): r, z = sigmoid(W x + U h + b),  n = tanh(W x + b + r * (U h + c)),
    h' = (1 - z) * n + z * h. LSTM (Gers et al. 2000): i, f, o = sigmoid(.), g = tanh(.), c' = f * c + i * g,
    h' = o * tanh(c'). Weights are orthogonal gate by gate, biases 0.

    Under autocast it keeps the precision of its parameters: a state that is fed back for hundreds of steps would lose
    everything below 1/256 of its size at each of them.
    """

    unrolled = False  # True: `features` runs cell by cell (equal up to rounding); the host never waits for the device

    def __init__(self, kind: str, num_inputs: int, size: int, layers: int) -> None:
        super().__init__()
        self.kind = kind
        self.num_features = size
        self.rnn = (nn.GRU if kind == "gru" else nn.LSTM)(num_inputs, size, layers)
        for name, parameter in self.rnn.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
            else:
                for gate in parameter.data.chunk(GATES[kind]):
                    nn.init.orthogonal_(gate)

    def initial(self, num_envs: int) -> Tensor:
        """Return zeros (N, layers, size or 2 size)."""
        width = self.num_features * (2 if self.kind == "lstm" else 1)
        return self.rnn.all_weights[0][0].new_zeros(num_envs, self.rnn.num_layers, width)

    def step(self, x: Tensor, memory: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step: x (N, F), memory (N, *memory), starts (N,) bool -> features (N, H), the memory after it.

        It calls the cells directly: for one row the sequence kernels take 1.2 to 2.2 times as long (docs/log.md).
        """
        after = []
        with self._full_precision(x):
            x = x.to(memory.dtype)
            for before, weights in zip(fresh(memory, starts).unbind(1), self.rnn.all_weights, strict=True):
                if self.kind == "gru":
                    x = torch.gru_cell(x, before, *weights)
                    after.append(x)
                else:
                    h, c = before.chunk(2, -1)
                    x, c = torch.lstm_cell(x, (h, c), *weights)
                    after.append(torch.cat((x, c), -1))
        return x, torch.stack(after, 1) if len(after) > 1 else after[0].unsqueeze(1)

    def features(self, x: Tensor, memory: Tensor, starts: Tensor) -> Tensor:
        """Compute the features of a chunk, but not the memory after it; the fastest way is chosen.

        x (L, B, F), memory (B, *memory) before row 0, starts (L, B) bool -> features (L, B, H).
        """
        if len(x) == 1:
            return self.step(x[0], memory, starts[0])[0].unsqueeze(0)
        with self._full_precision(x):
            if self.unrolled:
                return self._cell_by_cell(x, memory, starts)
            x, memory = x.to(memory.dtype), fresh(memory, starts[0])
            if not starts[1:].any():
                return self._whole(x, memory)[0]
            if self.kind == "gru" or x.device.type != "cpu" or x.dtype != torch.float32:
                return self._packed(x, memory, cut(starts))[0]
            # oneDNN's LSTM for float32 is much faster than the packed one, but does not support packing
            spliced, segments = splice(starts), cut(starts)
            groups = segments.groups()
            apart = sum(cost(round_up(int(segments.length[g.start])), round_up(g.stop - g.start)) for g in groups)
            # NaN times 0 is NaN: rows that are not finite must not reach the episodes after them
            if cost(*spliced.source.shape) <= apart and (x.sum() + memory.sum()).isfinite():
                return self._spliced(x, memory, spliced)
            return self._padded(x, memory, segments, groups)

    def sequence(self, x: Tensor, memory: Tensor, starts: Tensor, ends: Tensor | None) -> SequenceResult:
        """Compute a chunk's features, and the memory after its last row and after the rows in `ends`, (L, B) bool."""
        with self._full_precision(x):
            x, memory = x.to(memory.dtype), fresh(memory, starts[0])
            if not starts[1:].any() and (ends is None or not ends[:-1].any()):
                features, after = self._whole(x, memory)
                return SequenceResult(features, after, after[:0] if ends is None else after[ends[-1]])
            segments = cut(starts, ends)
            features, after = self._packed(x, memory, segments)
            return SequenceResult(
                features,
                after.index_select(0, index(segments.last_of_env, x.device)),
                after.index_select(0, index(segments.at_ends, x.device)),
            )

    def _cell_by_cell(self, x: Tensor, memory: Tensor, starts: Tensor) -> Tensor:
        """Compute row after row, as in the rollout -> features (L, B, H).

        A CUDA graph can capture this, but not cutting at the starts, for which the host must know where they are.
        """
        rows = []
        for now, begins in zip(x.unbind(), starts.unbind(), strict=True):
            features, memory = self.step(now, memory, begins)
            rows.append(features)
        return torch.stack(rows)

    def _whole(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Compute columns of equal length: x (M, S, F), memory (S, *memory) -> features (M, S, H), memory after."""
        features, state = self.rnn(x, self._to_library(memory))
        return features, self._from_library(state)

    def _packed(self, x: Tensor, memory: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
        """Compute all columns at once without padding.

        Return features (L, B, H) and the memory after each column, (S, *memory).
        """
        columns = slice(0, len(segments.length))
        rows, real = segments.rows(columns, int(segments.length[0]))
        place = rows[real]  # (R,) step by step, the longest column first
        packed = PackedSequence(x.flatten(0, 1).index_select(0, index(place, x.device)), torch.from_numpy(real.sum(1)))
        out, state = self.rnn(packed, self._to_library(_before(memory, segments, columns)))
        source = np.empty(x.shape[0] * x.shape[1], dtype=np.int64)
        source[place] = np.arange(len(place))  # rows computed twice (see `cut`) have equal results
        features = out.data.index_select(0, index(source, x.device))
        return features.unflatten(0, x.shape[:2]), self._from_library(state)

    def _spliced(self, x: Tensor, memory: Tensor, spliced: Spliced) -> Tensor:
        """Compute an LSTM's columns with rows inserted that clear the memory between episodes -> features (L, B, H).

        Such a row is 0 and has a flag, an additional input that closes the gates i, f and o: sigmoid(-SHUT) is exactly
        0, so c' = 0 * c + 0 * g = 0 and h' = 0 * tanh(0) = 0. No gradient passes it either.
        """
        clears = spliced.source == x.shape[0] * x.shape[1]  # (M, B)
        rows = torch.cat([x.flatten(0, 1), x.new_zeros(1, x.shape[-1])])
        rows = rows.index_select(0, index(spliced.source.reshape(-1), x.device)).unflatten(0, clears.shape)
        flag = torch.from_numpy(clears).to(x.dtype).unsqueeze(-1)  # (M, B, 1)
        shut = x.new_tensor([-SHUT, -SHUT, 0.0, -SHUT]).repeat_interleave(self.num_features).unsqueeze(-1)  # i, f, g, o
        for before, (inputs, *others) in zip(memory.unbind(1), self.rnn.all_weights, strict=True):
            h, c = (state.unsqueeze(0).contiguous() for state in before.chunk(2, -1))
            weights = [torch.cat([inputs, shut], 1), *others]
            rows = torch.lstm(torch.cat([rows, flag], -1), (h, c), weights, True, 1, 0.0, self.training, False, False)[
                0
            ]
        features = rows.flatten(0, 1).index_select(0, index(spliced.place.reshape(-1), x.device))
        return features.unflatten(0, x.shape[:2])

    def _padded(self, x: Tensor, memory: Tensor, segments: Segments, groups: list[slice]) -> Tensor:
        """Compute the columns group by group, shorter ones padded with rows that are ignored -> features (L, B, H)."""
        flat, outs, offset = x.flatten(0, 1), [], 0
        source = np.empty(len(flat), dtype=np.int64)
        for group in groups:
            steps, width = round_up(int(segments.length[group.start])), group.stop - group.start
            rows, real = segments.rows(group, steps)
            filled = np.pad(rows, ((0, 0), (0, round_up(width) - width)), mode="edge")  # (steps, columns)
            before = _before(memory, segments, group, filled.shape[1])
            inputs = flat.index_select(0, index(filled.reshape(-1), x.device)).unflatten(0, filled.shape)
            outs.append(self._whole(inputs, before)[0].flatten(0, 1))
            step, column = np.nonzero(real)
            source[rows[real]] = offset + step * filled.shape[1] + column
            offset += filled.size
        features = torch.cat(outs).index_select(0, index(source, x.device))
        return features.unflatten(0, x.shape[:2])

    def _to_library(self, memory: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Convert (S, layers, *) to torch's form: h (layers, S, H), or (h, c)."""
        memory = memory.transpose(0, 1)
        if self.kind == "gru":
            return memory.contiguous()
        h, c = memory.chunk(2, -1)
        return h.contiguous(), c.contiguous()

    def _from_library(self, state: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """Convert torch's form back to (S, layers, *)."""
        return (state if isinstance(state, Tensor) else torch.cat(state, -1)).transpose(0, 1)

    def _full_precision(self, x: Tensor) -> AbstractContextManager[object]:
        device = x.device.type
        return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _before(memory: Tensor, segments: Segments, columns: slice, width: int | None = None) -> Tensor:
    """Return the memory (S, *memory) before each column: the chunk's if it begins with row 0, else the initial one.

    width: number of columns including padding; padding columns get the initial memory.
    """
    begins = np.flatnonzero(segments.begins[columns])
    zeros = memory.new_zeros(width or columns.stop - columns.start, *memory.shape[1:])
    env = index(segments.env[columns][begins], memory.device)
    return zeros.index_copy(0, index(begins, memory.device), memory.index_select(0, env))
