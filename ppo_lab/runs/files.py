"""File operations that are atomic (a crash leaves no half-written file) and, where needed, synced to disk."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ppo_lab.errors import RunError

TEMPORARY = re.compile(r"\.tmp-.+-(\d+)-[0-9a-f]{8}")  # .tmp-<final name>-<pid>-<random>


@contextmanager
def disk(act: str) -> Iterator[None]:
    """Convert an OSError in this context to a RunError "cannot <act>: <reason>"."""
    try:
        yield
    except RunError:
        raise
    except OSError as error:
        raise RunError(f"cannot {act}: {error.strerror or error}") from error


def temporary_for(path: Path) -> Path:
    """Return an unused temporary name in the folder of `path`, for a file that will be renamed to `path`."""
    return path.with_name(f".tmp-{path.name}-{os.getpid()}-{secrets.token_hex(4)}")


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_all(folder: Path, contents: Mapping[str, bytes], also: Sequence[Path] = ()) -> None:
    """Write files into a folder and wait until they, and the files in `also`, are on disk.

    All files are synced in parallel: the file system then combines them into one journal entry, which takes a fifth of
    the time of syncing one after another.
    """
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    paths = [*also, *(folder / name for name in contents)]
    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(sync, paths))


def replace(path: Path, data: bytes) -> None:
    """Replace a file atomically, without sync: a power cut may lose the change. For files that are only hints."""
    temporary = temporary_for(path)
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_synced(path: Path, data: bytes) -> None:
    """Replace a file atomically and wait until the new one is on disk."""
    temporary = temporary_for(path)
    try:
        write_synced(temporary, data)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def append(path: Path, data: bytes, wait: bool = False) -> None:
    """Append to a file, all of the data or none. With `wait`, return only when it is on disk."""
    with path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if wait:
                os.fsync(file.fileno())
        except BaseException:
            file.truncate(size)  # an incomplete line would corrupt the next one
            raise


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on disk. Otherwise a power cut can undo a rename."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def whole_lines(path: Path) -> list[str]:
    """Return the complete lines of a file, [] if it does not exist. Raise RunError if it is not UTF-8 text.

    An incomplete last line (from a crash while writing) is left out.
    """
    if not path.exists():
        return []
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except UnicodeDecodeError:
        raise RunError(f"{path} is not text") from None
