"""One trainer a run: the second, here or in another process, is refused."""

from __future__ import annotations

import fcntl
import os
import weakref
from contextlib import suppress
from pathlib import Path

from ppo_lab.errors import RunError


class RunLock:
    """An advisory lock on the run's folder; it goes with this object or with the process, however that ends."""

    def __init__(self, folder: Path) -> None:
        """Lock the folder. Raise RunError if another trainer holds the run."""
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 20).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            here = " (this one: close the trainer that holds it)" if holder == str(os.getpid()) else ""
            raise RunError(f"run {folder} is in use by process {holder}{here}; or fork the run") from None
        except OSError:
            os.close(handle)
            raise
        self._release = weakref.finalize(self, os.close, handle)  # closing is what unlocks
        with suppress(OSError):  # for the message above only; a full disk is no reason not to resume
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let the run go. Twice is harmless."""
        self._release()


def is_locked(folder: Path) -> bool:
    """Return whether a process is training the run."""
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:
        return False  # nobody ever did
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
