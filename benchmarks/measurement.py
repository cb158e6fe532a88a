"""One measurement in a fresh interpreter: what the parent does to get it, and what the child does to give it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from settings import ROOT

# NPROC is JAX's
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
ON_GPU = {"gpu_training.py"}


class Clock:
    """Runs from the moment it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Seconds by the clock on the wall, and of computing (all threads of this process)."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return {"seconds": round(wall, 4), "cpu_seconds": round(cpu, 4)}


def environment(threads: int, gpu: bool = False) -> dict[str, str]:
    """Environment variables of a process with so many threads, and with or without a GPU."""
    return os.environ | dict.fromkeys(THREADS, str(threads)) | ({} if gpu else {"CUDA_VISIBLE_DEVICES": ""})


def threads() -> int:
    """The child's side of `environment`: threads it may use."""
    return int(os.environ.get(THREADS[0], "1"))


def peak_megabytes() -> float:
    """The most memory this process had at once, in MB of 10^6 bytes."""
    return megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def megabytes(maxrss: int) -> float:
    """What `ru_maxrss` says, which is in KiB but on macOS in bytes."""
    return round(maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def measure(script: str, kind: str, **task: Any) -> dict[str, Any]:
    """What benchmarks/<script> says of one task, in a process of its own; only `ON_GPU` see a GPU.

    `num_threads` is not part of the task: how many it may use, 1 where it is not given.

    Raises SystemExit with the end of what the child wrote if it fails.
    """
    num_threads = task.pop("num_threads", 1)
    command = [sys.executable, str(ROOT / "benchmarks" / script), kind, json.dumps(task)]
    settings = environment(num_threads, gpu=script in ON_GPU)
    child = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    if child.returncode:
        end = "\n".join(child.stderr.splitlines()[-15:])
        raise SystemExit(f"{script} {kind} {task} ended with status {child.returncode}:\n{end}")
    answer: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return answer


def write_json(path: Path, results: Mapping[str, Any]) -> None:
    """Write results so that the file is always whole: it holds hours of work."""
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = path.with_suffix(".tmp")
    waiting.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    waiting.replace(path)


def answer(kinds: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """The child's side of `measure`: do what the command line asks for, and print the numbers as the last line."""
    import torch

    torch.set_num_threads(threads())
    kind, task = sys.argv[1:]
    print(json.dumps(kinds[kind](**json.loads(task))))
