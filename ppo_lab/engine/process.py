"""Settings of a run that affect the whole process: threads, determinism, and how freed memory is kept."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from ppo_lab.config import RunConfig

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # constants of malloc.h
LARGEST = 2**25  # bytes of one tensor; the largest threshold that glibc accepts
KEPT = 2**30  # bytes in all


def prepare_process(run: RunConfig) -> None:
    """Apply run.threads ("auto" starts with one thread) and run.deterministic, and keep freed memory."""
    if run.threads is not None:
        torch.set_num_threads(1 if isinstance(run.threads, str) else run.threads)
    if run.deterministic:
        # read at the first matrix product on a GPU; this value works for cuBLAS and for the LSTM of cuDNN
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    keep_freed_memory()


def give_back_memory() -> None:
    """Return kept memory to the system, so that it counts as free. Does nothing without `malloc_trim`."""
    if sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> bool:
    """Let this process keep up to a gigabyte of freed memory; return False if the C library does not support it.

    By default glibc returns large blocks to the system at once, and the system fills their pages with zeros when they
    are allocated again: a third of the time of a gradient through convolutions (docs/log.md). Results do not change.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
