"""The window core: each step attends to the last steps of its episode, which are kept as memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppo_lab.models.networks.mlp import orthogonal
from ppo_lab.models.networks.sequences import SequenceResult, fresh


class Window(nn.Module):
    """A causal Transformer (pre-LN) over a sliding window: x (*, num_inputs) and memory -> features (*, size).

    In each layer a step attends to the inputs of that layer at the last `window` steps, including itself, of its own
    episode (Dai et al. 2019, Transformer-XL, with a window that slides step by step). A bias for each distance and
    head (Raffel et al. 2020) distinguishes the steps, so it does not matter where a chunk begins. L layers see
    L * (window - 1) + 1 steps.

    Memory (N, layers, window - 1, size + 1): the inputs of each layer at the previous steps, the newest last, and a
    last column that is 1 where there was a step.
    """

    def __init__(self, num_inputs: int, size: int, layers: int, window: int, heads: int) -> None:
        super().__init__()
        self.num_features = size
        self.window = window
        self.embed = orthogonal(num_inputs, size, gain=1.0)
        self.layers = nn.ModuleList(WindowLayer(size, heads, window, (2 * layers) ** -0.5) for _ in range(layers))
        self.norm = nn.LayerNorm(size)

    def initial(self, num_envs: int) -> Tensor:
        """Return zeros (N, layers, window - 1, size + 1): no step yet."""
        return self.embed.weight.new_zeros(num_envs, len(self.layers), self.window - 1, self.num_features + 1)

    def step(self, x: Tensor, memory: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step: x (N, F), memory (N, *memory), starts (N,) bool -> features (N, H), the memory after it."""
        features, after, _ = self.sequence(x.unsqueeze(0), memory, starts.unsqueeze(0), None)
        return features.squeeze(0), after

    def features(self, x: Tensor, memory: Tensor, starts: Tensor) -> Tensor:
        """Compute a chunk's features: x (L, B, F), memory (B, *memory), starts (L, B) bool -> features (L, B, H)."""
        return self._attend(x, memory, starts)[0]

    def sequence(self, x: Tensor, memory: Tensor, starts: Tensor, ends: Tensor | None) -> SequenceResult:
        """Compute a chunk's features, and the memory after its last row and after the rows in `ends`, (L, B) bool."""
        features, inputs, episode = self._attend(x, memory, starts)  # inputs: (B, layers, window - 1 + L, size)
        L, before = len(x), self.window - 1
        now = episode[:, -1:]  # (B, 1)
        after = _stored(inputs[:, :, L:], episode[:, L:] == now)
        if ends is None:
            return SequenceResult(features, after, after[:0])
        time, env = ends.nonzero(as_tuple=True)  # (E,)
        place = time.unsqueeze(1) + 1 + torch.arange(before, device=x.device)  # (E, window - 1) of the rows up to it
        env = env.unsqueeze(1)
        same = episode[env, place] == episode[env, time.unsqueeze(1) + before]
        return SequenceResult(features, after, _stored(inputs[env, :, place].transpose(1, 2), same))

    def _attend(self, x: Tensor, memory: Tensor, starts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features (L, B, H), the inputs (B, layers, rows, size) of each layer, each row's episode (B, rows).

        rows = window - 1 + L: those from memory, then those of the chunk. Episode -1: there was no step.
        """
        memory = fresh(memory, starts[0])
        number = starts.transpose(0, 1).long().cumsum(1)  # (B, L)
        remembered = memory[:, 0, :, -1].long() - 1  # (B, window - 1) 0: row 0's episode (`fresh` cleared others)
        episode = torch.cat((remembered, number), 1)
        view = _View(episode, len(x), self.window)
        rows = self.embed(x).transpose(0, 1).to(memory.dtype)  # (L, B, size) -> (B, L, size)
        inputs = []
        for layer, past in zip(self.layers, memory[..., :-1].unbind(1), strict=True):
            inputs.append(torch.cat((past, rows), 1))
            rows = layer(inputs[-1], rows, view)
        return self.norm(rows).transpose(0, 1), torch.stack(inputs, 1), episode


class _View:
    """The rows that each query may attend to. Queries are grouped in blocks, so the cost grows with L and not with L^2.

    A block of `block` rows attends to these and the window - 1 rows before them: `span` rows.
    """

    def __init__(self, episode: Tensor, length: int, window: int) -> None:
        self.block = min(length, max(window, 16))
        self.blocks = -(-length // self.block)
        self.fill = self.blocks * self.block - length  # padding rows after the last
        self.span = window - 1 + self.block
        device = episode.device
        distance = torch.arange(self.block, device=device).unsqueeze(1) + window - 1
        distance = distance - torch.arange(self.span, device=device)  # (block, span) steps back
        self.distance = distance.clamp(0, window - 1)
        padded = F.pad(episode, (0, self.fill), value=-1)
        keys = padded.unfold(1, self.span, self.block).unsqueeze(2)  # (B, blocks, 1, span)
        queries = padded[:, window - 1 :].unflatten(1, (self.blocks, self.block)).unsqueeze(3)  # (B, blocks, block, 1)
        out = (distance < 0) | (distance >= window)
        self.hidden = ((keys != queries) | out).unsqueeze(2)  # (B, blocks, 1, block, span)


class WindowLayer(nn.Module):
    """A pre-LN Transformer layer: attention, then a hidden layer four times as wide, each added to its input."""

    def __init__(self, size: int, heads: int, window: int, gain: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_hidden = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query, self.key, self.value = (orthogonal(size, size, gain=1.0) for _ in range(3))
        self.bias = nn.Parameter(torch.zeros(heads, window))  # added to the score, by number of steps back
        self.out = orthogonal(size, size, gain)
        self.hidden, self.down = orthogonal(size, 4 * size, gain=2**0.5), orthogonal(4 * size, size, gain)

    def forward(self, inputs: Tensor, rows: Tensor, view: _View) -> Tensor:
        """Apply the layer: inputs (B, window - 1 + L, size), which end with `rows` (B, L, size) -> (B, L, size)."""
        L = rows.shape[1]
        normed = self.norm(inputs)
        query = F.pad(self.query(normed[:, -L:]), (0, 0, 0, view.fill)).unflatten(1, (view.blocks, view.block))
        query = query.unflatten(3, (self.heads, -1)).transpose(2, 3)  # (B, blocks, heads, block, size / heads)
        key, value = (self._spans(layer(normed), view) for layer in (self.key, self.value))
        scores = query @ key * query.shape[-1] ** -0.5 + self.bias[:, view.distance]  # (B, blocks, heads, block, span)
        weights = scores.masked_fill(view.hidden, -torch.inf).softmax(-1)
        seen = (weights.to(value.dtype) @ value.transpose(3, 4)).transpose(2, 3).flatten(3)  # (B, blocks, block, size)
        rows = rows + self.out(seen.flatten(1, 2)[:, :L])
        return rows + self.down(F.gelu(self.hidden(self.norm_hidden(rows))))

    def _spans(self, x: Tensor, view: _View) -> Tensor:
        """Arrange (B, window - 1 + L, size) as the rows each block sees: (B, blocks, heads, size / heads, span)."""
        spans = F.pad(x, (0, 0, 0, view.fill)).unfold(1, view.span, view.block)  # (B, blocks, size, span)
        return spans.unflatten(2, (self.heads, -1))


def _stored(inputs: Tensor, real: Tensor) -> Tensor:
    """Return the memory of inputs (N, layers, window - 1, size); zeros where real (N, window - 1) bool is False."""
    mark = real[:, None, :, None].expand(*inputs.shape[:3], 1)  # (N, layers, window - 1, 1)
    return torch.cat((inputs, mark.to(inputs.dtype)), -1).masked_fill(~mark, 0.0)
