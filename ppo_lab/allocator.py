"""Keep the memory that tensors gave back, instead of handing it to the system and asking for it again."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of malloc.h
LARGEST = 2**25  # bytes of one tensor; glibc takes no larger threshold
KEPT = 2**30  # bytes in all


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
