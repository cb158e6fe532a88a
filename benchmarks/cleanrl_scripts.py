"""Measurements of CleanRL's scripts as their user has them: run as they are, with the flags they have.

A script loads libraries and makes environments first. It is run twice, short and long, and what the long run takes more
is what the updates between them cost. It cannot be told to write no TensorBoard files.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from measurement import environment, megabytes


class Spent(NamedTuple):
    """What one process took."""

    seconds: float
    cpu_seconds: float  # of all its threads
    peak_megabytes: float


def flags(script: str, settings: Mapping[str, Any]) -> list[str]:
    """Settings as the command line of a script (its text): tyro's `--no-cuda`, or argparse's `--cuda False`."""
    line = []
    for key, value in settings.items():
        name = key.replace("_", "-")
        if isinstance(value, bool) and "import tyro" in script:
            line.append(f"--{name}" if value else f"--no-{name}")
        else:
            line += [f"--{name}", str(value)]
    return line


def measure_script(
    path: Path, python: str, settings: Mapping[str, Any], num_threads: int, seed: int, warm_up: int, updates: int
) -> dict[str, Any]:
    """Seconds for `updates` updates after `warm_up` others. Raises SystemExit if the script fails."""
    rows = settings["num_envs"] * settings["num_steps"]
    text = path.read_text(encoding="utf-8")
    runs = []
    for length in (warm_up, warm_up + updates):
        given = flags(text, {**settings, "seed": seed, "total_timesteps": length * rows})
        runs.append(_run([python, str(path.resolve()), *given], num_threads))
    short, long = runs
    if long.seconds <= short.seconds or long.cpu_seconds <= short.cpu_seconds:
        raise SystemExit(f"{path.name}: {updates} updates are too few to tell what they take")
    return {
        "steps": updates * rows,
        "seconds": round(long.seconds - short.seconds, 4),
        "cpu_seconds": round(long.cpu_seconds - short.cpu_seconds, 4),
        "peak_megabytes": long.peak_megabytes,
    }


def digest(path: Path) -> str:
    """Which version of a script that is: the beginning of its SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _run(command: list[str], num_threads: int) -> Spent:
    """A process to its end, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        child = subprocess.Popen(
            command, cwd=folder, env=environment(num_threads), stdout=said, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
        if child.returncode:
            said.seek(0)
            end = "\n".join(said.read().splitlines()[-15:])
            raise SystemExit(f"{Path(command[1]).name} ended with status {child.returncode}:\n{end}")
    return Spent(seconds, usage.ru_utime + usage.ru_stime, megabytes(usage.ru_maxrss))
