"""What was measured on: hardware without names, and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def hardware() -> dict[str, Any]:
    """The processor, and how many cores this process may use."""
    return {"cpu": _cpu(), "cores": cores(), "system": f"{platform.system()} {platform.machine()}"}


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float:
    """How many processes wanted a core in the last minute, this benchmark included."""
    return round(os.getloadavg()[0], 2)


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of installed packages."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def _cpu() -> str:
    """Model, and family and number behind it: hypervisors like to shorten the model's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or "unknown"
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    family, model = facts.get("cpu family"), facts.get("model")
    return facts.get("model name", "unknown") + (f" (family {family}, model {model})" if family and model else "")
