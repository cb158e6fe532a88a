"""The official plant: the challenge's network, from the user's tinyphysics.onnx.

It is a small GPT over 20 rows of (steering, roll, speed, acceleration) and 20 tokens of lateral acceleration; the next
token is drawn from its softmax at temperature 0.8. `OnnxPlant` runs the file with onnxruntime and gives the official
numbers bit for bit; `TorchPlant` loads the weights into torch and runs on any device, with logits that differ by about
1e-5.

Only the output of the last position is used, so the last block computes only that one. A cache of keys and values
would not help: positions are absolute and the window moves, so every row is new in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppo_lab.errors import EnvError

from .gpt import Gpt, load_onnx
from .plants import Drive
from .rules import BINS, CONTEXT, CONTROL_START, LATACCEL_LIMIT, encode

TEMPERATURE = 0.8
CHUNK = 64  # cars in one call of the network: more do not fit into the cache of a core
CUT_AFTER = "/h.3/Add_output_0"  # in the last block, after its attention: from here on positions do not mix


# states (N, 20, 4) float32 and tokens (N, 20) int64 -> logits (N, 1024) float32 of the last position
Network = Callable[[np.ndarray, np.ndarray], np.ndarray]


class OnnxPlant:
    """N cars simulated with onnxruntime on the CPU. `Plant` describes the methods.

    Args:
        model: Path of tinyphysics.onnx.
        expected: Use the mean of the predicted distribution instead of drawing from it: no noise.

    Raises:
        EnvError: The file is missing or is another network, or onnxruntime or onnx is not installed.
    """

    def __init__(self, model: str | Path, expected: bool = False) -> None:
        self.memory: dict[str, Tensor] = {}
        self.expected = expected
        self.logits = onnx_network(model)

    def begin(self, drive: Drive, generator: torch.Generator) -> None:
        """Do nothing: all cars are the same."""

    def prepare(self, drive: Drive) -> None:
        """Do nothing: there is nothing to precompute."""

    def next_lataccel(self, drive: Drive, t: int) -> np.ndarray:
        """Return (N,) m/s^2, drawn as in the official simulator."""
        logits = self.logits(*window(drive, t))
        scaled = np.exp(logits / TEMPERATURE - np.max(logits / TEMPERATURE, axis=-1, keepdims=True))
        probabilities = (scaled / np.sum(scaled, axis=-1, keepdims=True)).astype(np.float64)  # (N, 1024)
        if self.expected:
            mean: np.ndarray = probabilities @ BINS / probabilities.sum(-1)
            return mean
        cumulated = np.cumsum(probabilities, axis=-1)  # in float64: in float32 one token in 20,000 differs
        cumulated /= cumulated[:, -1:]
        draws = drive.draws[t - CONTROL_START]
        tokens = [np.searchsorted(row, draw, side="right") for row, draw in zip(cumulated, draws, strict=True)]
        drawn: np.ndarray = BINS[tokens]
        return drawn


class TorchPlant:
    """N cars simulated with torch on their device. `Plant` describes the methods.

    Args:
        model: Path of tinyphysics.onnx.
        device: Device of the network.
        precision: torch.float32, or torch.bfloat16: fine for training, not for scores.
        expected: As for OnnxPlant.
    """

    def __init__(
        self,
        model: str | Path,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        expected: bool = False,
    ) -> None:
        self.memory: dict[str, Tensor] = {}
        self.expected = expected
        self.network = Gpt(load_onnx(model)).to(device, precision).eval().requires_grad_(False)
        self._precision = precision
        self._bins = torch.from_numpy(BINS).to(device)

    def begin(self, drive: Drive, generator: torch.Generator) -> None:
        """Do nothing: all cars are the same."""

    def prepare(self, drive: Drive) -> None:
        """Do nothing: there is nothing to precompute."""

    @torch.no_grad()
    def next_lataccel(self, drive: Drive, t: int) -> Any:
        """Return (N,) m/s^2."""
        x = drive.tensors
        columns = (x["actions"], x["roll"], x["v"], x["a"])
        rows = slice(t - CONTEXT + 1, t + 1)
        states = torch.stack([column[rows] for column in columns], -1).transpose(0, 1).to(self._precision)
        past = x["lataccel"][t - CONTEXT : t].mT.clamp(-LATACCEL_LIMIT, LATACCEL_LIMIT).contiguous()  # (N, 20)
        tokens = torch.bucketize(past, self._bins)
        logits = torch.cat(
            [self.network(*part) for part in zip(states.split(CHUNK), tokens.split(CHUNK), strict=True)]
            if states.device.type == "cpu"
            else [self.network(states, tokens)]
        )
        probabilities = torch.softmax(logits.float() / TEMPERATURE, -1).double()  # (N, 1024)
        if self.expected:
            answer = probabilities @ self._bins / probabilities.sum(-1)
        else:
            cumulated = probabilities.cumsum(-1)
            cumulated = cumulated / cumulated[:, -1:]
            draws = x["draws"][t - CONTROL_START].unsqueeze(-1)
            chosen = torch.searchsorted(cumulated, draws, right=True).squeeze(-1)
            answer = self._bins[chosen.clamp(max=len(BINS) - 1)]
        return answer.numpy() if drive.xp is np else answer


def window(drive: Drive, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the network's input for row t: states (N, 20, 4) float32 of rows t-19 to t, tokens (N, 20) before it."""
    rows = slice(t - CONTEXT + 1, t + 1)
    columns = (drive.actions, drive.roll, drive.v, drive.a)
    states = np.stack([column[rows] for column in columns], axis=-1).swapaxes(0, 1)  # (N, 20, 4)
    return states.astype(np.float32), encode(drive.lataccel[t - CONTEXT : t].T)


def onnx_network(model: str | Path) -> Network:
    """Load the network of the file into onnxruntime, with one thread. Raises EnvError."""
    graph = load_onnx(model)
    try:
        import onnxruntime
        from onnx import TensorProto, helper
    except ImportError:
        raise EnvError("plant='onnx' needs onnxruntime: pip install onnxruntime onnx") from None
    # The last block computes only the last position: bit-identical output in two thirds of the time.
    users = [node for node in graph.graph.node if CUT_AFTER in node.input]
    for name, number in (("from", -1), ("to", 2**31 - 1), ("axis", 1)):
        graph.graph.initializer.append(helper.make_tensor(f"cut_{name}", TensorProto.INT64, [1], [number]))
    cut = helper.make_node("Slice", [CUT_AFTER, "cut_from", "cut_to", "cut_axis"], ["last_position"])
    for node in users:
        node.input[:] = ["last_position" if name == CUT_AFTER else name for name in node.input]
    graph.graph.node.insert(list(graph.graph.node).index(users[0]), cut)
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def logits(states: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        parts = [
            session.run(None, {"states": states[i : i + CHUNK], "tokens": tokens[i : i + CHUNK]})[0][:, -1]
            for i in range(0, len(states), CHUNK)
        ]
        return np.concatenate(parts)  # (N, 1024)

    return logits
