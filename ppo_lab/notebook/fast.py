"""A mode in which every notebook finishes in seconds: for tests of the notebooks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

FAST_MODE = "PPO_LAB_FAST"  # environment variable; a kernel inherits it
SMALL = {"ppo.total_timesteps": 8_192, "ppo.update_epochs": 2, "run.root": None}  # nothing learned, nothing written


def fast(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides as they are, or shrunk to a run of seconds where PPO_LAB_FAST=1."""
    return {**overrides, **SMALL} if is_fast() else dict(overrides)


def is_fast() -> bool:
    """PPO_LAB_FAST=1 is set."""
    return os.environ.get(FAST_MODE) == "1"
