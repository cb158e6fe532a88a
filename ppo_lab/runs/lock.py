"""The lock of a run: only one trainer can hold it, in this or any other process."""

from __future__ import annotations

import fcntl
import os
import weakref
from contextlib import suppress
from pathlib import Path

from ppo_lab.errors import RunError


class RunLock:
    """An advisory lock on a run folder. It is released with this object, or when the process ends in any way."""

    def __init__(self, folder: Path) -> None:
        """Lock the folder. Raise RunError if another trainer holds the run."""
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 20).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            here = " (this process)" if holder == str(os.getpid()) else ""
            raise RunError(
                f"run {folder} is in use by process {holder}{here}; close its trainer, or fork the run"
            ) from None
        except OSError:
            os.close(handle)
            raise
        self._release = weakref.finalize(self, os.close, handle)  # closing the file releases the lock
        with suppress(OSError):  # only for the message above; a full disk must not prevent resuming
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Release the lock. Calling it twice is harmless."""
        self._release()


def is_locked(folder: Path) -> bool:
    """Return whether a trainer holds the lock of the run, in any process."""
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:
        return False  # no lock file: the run was never locked
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
