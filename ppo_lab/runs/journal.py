"""The journal of a run: all live changes of settings during training. It makes an exact replay possible."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ppo_lab.errors import RunError
from ppo_lab.runs.files import append, replace_synced, whole_lines

NAME = "journal.jsonl"


class Change(NamedTuple):
    """One live change of a setting, applied from `update` on."""

    update: int  # the first update with the new value; 1 is the first of a run
    global_step: int  # env steps before that update
    key: str
    old: Any
    new: Any
    source: str  # what made the change: "code", "dashboard", "resume", ...


def append_changes(folder: Path, changes: list[Change]) -> None:
    """Append changes to the journal, all or none, and wait until they are on disk."""
    append(folder / NAME, _text(changes), wait=True)


def read_journal(folder: str | Path) -> list[Change]:
    """Return all live changes of a run, in order. Raise RunError for an invalid line."""
    changes = []
    for number, line in enumerate(whole_lines(Path(folder) / NAME), start=1):
        try:
            changes.append(Change(**json.loads(line)))
        except (ValueError, TypeError, RecursionError):
            raise RunError(f"{Path(folder) / NAME}: line {number} is not a change") from None
    return changes


def write_journal(folder: Path, changes: list[Change]) -> None:
    """Replace the journal by `changes`."""
    replace_synced(folder / NAME, _text(changes))


def digest(changes: Iterable[Change], update: int) -> str:
    """Return the SHA-256 of the changes up to an update: those that a checkpoint of that update was trained with."""
    past = [change for change in changes if change.update <= update]
    return hashlib.sha256(_text(sorted(past, key=lambda change: change.update))).hexdigest()  # a stable sort


def _text(changes: list[Change]) -> bytes:
    return "".join(json.dumps(change._asdict()) + "\n" for change in changes).encode()
