"""Cores, the layers with memory between a body and a head. `CORES` lists them by their name in `model.core`."""

from __future__ import annotations

from collections.abc import Callable

from ppo_lab.config import ModelConfig
from ppo_lab.models.networks.recurrent import Recurrent
from ppo_lab.models.networks.sequences import Core, SequenceResult, run_core
from ppo_lab.models.networks.window import Window

__all__ = ["CORES", "Core", "Recurrent", "SequenceResult", "Window", "make_core", "run_core"]

CORES: dict[str, Callable[[ModelConfig, int], Recurrent | Window | None]] = {
    "none": lambda config, num_inputs: None,
    "gru": lambda config, num_inputs: Recurrent("gru", num_inputs, config.core_size, config.core_layers),
    "lstm": lambda config, num_inputs: Recurrent("lstm", num_inputs, config.core_size, config.core_layers),
    "window": lambda config, num_inputs: Window(
        num_inputs, config.core_size, config.core_layers, config.window, config.attention_heads
    ),
}


def make_core(config: ModelConfig, num_inputs: int) -> Recurrent | Window | None:
    """Make the core that `config.core` names, for `num_inputs` features of the body; None for "none"."""
    return CORES[config.core](config, num_inputs)
