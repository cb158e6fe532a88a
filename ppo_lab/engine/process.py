"""What a run sets for its whole process: threads, determinism, what becomes of freed memory."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from ppo_lab.config import RunConfig

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of malloc.h
LARGEST = 2**25  # bytes of one tensor; glibc takes no larger threshold
KEPT = 2**30  # bytes in all


def prepare_process(run: RunConfig) -> None:
    """Set threads and determinism as `run` asks ("auto" begins with one thread), and keep freed memory."""
    if run.threads is not None:
        torch.set_num_threads(1 if isinstance(run.threads, str) else run.threads)
    if run.deterministic:
        # read when a GPU multiplies matrices for the first time; this value is good for cuBLAS and for cuDNN's LSTM
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    keep_freed_memory()


def give_back_memory() -> None:
    """Hand what is kept to the system, so that it counts as free."""
    if sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> bool:
    """Let this process keep up to a gigabyte of freed memory; False where the C library cannot be told.

    By default glibc gives large blocks back at once, and the system fills each with zeros, page by page, when they are
    wanted again: a third of the time of a gradient through convolutions (docs/log.md). Numbers do not change.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
