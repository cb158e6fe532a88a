"""The challenge's network in torch, with the weights from the user's ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppo_lab.errors import EnvError

WIDTH, HEADS, LAYERS = 128, 4, 4
PER_BLOCK = 4  # matrices of a block: query-key-value, projection, widening, narrowing


def load_onnx(model: str | Path) -> Any:
    """Load the file as an onnx.ModelProto. Raises EnvError if it is missing, another network, or onnx is missing."""
    path = Path(model).expanduser()
    if not path.is_file():
        raise EnvError(
            f"model: no file {path}; it is models/tinyphysics.onnx of github.com/commaai/controls_challenge, "
            "or use plant='surrogate', which needs none"
        )
    try:
        import onnx
    except ImportError:
        raise EnvError("the official plant needs onnx: pip install onnxruntime onnx") from None
    try:
        loaded = onnx.load(str(path))
        inputs = [entry.name for entry in loaded.graph.input]
    except Exception as error:  # the errors of onnx and protobuf for a broken file are not documented
        raise EnvError(f"model: {path} is not an ONNX file: {str(error)[:200]}") from None
    weights = {entry.name for entry in loaded.graph.initializer}
    if inputs != ["states", "tokens"] or "transformer.wp_embedding.weight" not in weights:
        raise EnvError(f"model: {path} is another network: its inputs are {inputs}, tinyphysics has states and tokens")
    return loaded


@final
class Gpt(nn.Module):
    """states (N, 20, 4), tokens (N, 20) int64 -> logits (N, 1024) of the last position.

    Four pre-norm blocks of width 128 with 4 heads (LayerNorm eps 1e-5, tanh GELU); half of the input's width is a
    linear map of the state and half an embedding of the token, plus learned absolute positions.
    """

    def __init__(self, model: Any) -> None:
        """Read the weights of a model from `load_onnx`. Its matrices have no names: they are in order of the layers."""
        super().__init__()
        from onnx import numpy_helper

        arrays = {
            entry.name: torch.from_numpy(numpy_helper.to_array(entry).copy()) for entry in model.graph.initializer
        }
        matrices = [arrays[name] for name in arrays if name.startswith("onnx::MatMul")]  # (in, out)

        def norm(name: str) -> nn.LayerNorm:
            layer = nn.LayerNorm(WIDTH)
            layer.weight.data, layer.bias.data = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
            return layer

        self.state = linear(matrices[0], arrays["transformer.wt_embedding.bias"])
        self.token = nn.Embedding.from_pretrained(arrays["transformer.wt2_embedding.weight"])
        self.position = nn.Parameter(arrays["transformer.wp_embedding.weight"])
        self.blocks = nn.ModuleList(
            Block(
                norm(f"transformer.h.{i}.attn.layer_norm"),
                norm(f"transformer.h.{i}.mlp.layer_norm"),
                [linear(matrix) for matrix in matrices[1 + PER_BLOCK * i : 1 + PER_BLOCK * (i + 1)]],
            )
            for i in range(LAYERS)
        )
        self.norm = norm("transformer.layer_norm_f")
        self.head = linear(matrices[-1])

    def forward(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Compute logits: (N, 20, 4), (N, 20) -> (N, 1024)."""
        x = torch.cat([self.state(states), self.token(tokens)], -1) + self.position  # (N, 20, 128)
        for i, block in enumerate(self.blocks):
            x = block(x, last_only=i == LAYERS - 1)
        answer: Tensor = self.head(self.norm(x)).squeeze(1)
        return answer


@final
class Block(nn.Module):
    """Attention, then a two-layer MLP, each with a residual connection."""

    def __init__(self, before_attention: nn.LayerNorm, before_mlp: nn.LayerNorm, layers: list[nn.Linear]) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = before_attention, before_mlp
        self.query_key_value, self.projection, self.widen, self.narrow = layers

    def forward(self, x: Tensor, last_only: bool) -> Tensor:
        """Map (N, 20, 128) to the same shape, or with last_only to (N, 1, 128), the last position, which sees all."""
        N, L, _ = x.shape
        parts = self.query_key_value(self.before_attention(x)).view(N, L, 3, HEADS, WIDTH // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # (N, heads, L, 32) each
        if last_only:
            query, x = query[:, :, -1:], x[:, -1:]
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=not last_only)
        x = x + self.projection(seen.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.before_mlp(x)), approximate="tanh"))


def linear(matrix: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """Make the layer x -> x matrix + bias from a matrix (in, out), ONNX's layout."""
    layer = nn.Linear(matrix.shape[0], matrix.shape[1], bias=bias is not None)
    layer.weight.data = matrix.T.contiguous()
    if bias is not None:
        layer.bias.data = bias
    return layer
