"""Fast mode, in which every notebook finishes in seconds, for tests of the notebooks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ppo_lab.config.yaml_text import parse_yaml
from ppo_lab.errors import ConfigError

FAST_MODE = "PPO_LAB_FAST"  # environment variable; a kernel inherits it
SMALL = {"ppo.total_timesteps": 8_192, "ppo.update_epochs": 2, "run.root": None}  # too short to learn; no files


def fast(*layers: Mapping[str, Any] | str) -> dict[str, Any]:
    """Merge layers of overrides, and shrink the run to seconds if PPO_LAB_FAST=1.

    A layer can be text, as passed by papermill's `-p overrides "{ppo.gamma: 0.9}"`. Raises ConfigError.
    """
    settings: dict[str, Any] = {}
    for layer in layers:
        plain = parse_yaml(layer) if isinstance(layer, str) else layer
        if not isinstance(plain, Mapping):
            raise ConfigError(f"overrides: expected settings such as {{ppo.gamma: 0.9}}, got {layer!r}")
        settings.update(plain)
    return {**settings, **SMALL} if is_fast() else settings


def is_fast() -> bool:
    """Return whether PPO_LAB_FAST=1 is set."""
    return os.environ.get(FAST_MODE) == "1"
