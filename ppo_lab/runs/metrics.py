"""Where the numbers of every update go: metrics.jsonl, which is the truth, and TensorBoard, which is a view."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ppo_lab.errors import RunError
from ppo_lab.runs.files import append, replace_synced, whole_lines

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Sink(Protocol):
    """Something that takes the numbers of every update."""

    def write(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Take one update's numbers."""
        ...

    def amend(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Take more numbers of the update that was written last."""
        ...

    def flush(self) -> None:
        """Hand what is waiting to the operating system."""
        ...

    def go_back_to(self, global_step: int) -> None:
        """Prepare to write everything after this step again."""
        ...

    def close(self) -> None:
        """Write out what is waiting and let go of files."""
        ...


class JsonLines:
    """One line of JSON an update: {"update": 1, "global_step": 1024, "loss/policy": ...}. No file stays open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting = b""  # lines that the disk did not take

    def write(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Append one line, whole, and hand it to the operating system."""
        line = json.dumps({"update": update, "global_step": global_step, **metrics}, allow_nan=False)
        self._waiting += line.encode() + b"\n"
        self._write_waiting()

    def _write_waiting(self) -> None:
        append(self.path, self._waiting)
        self._waiting = b""

    def amend(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Put them into the last line. Raises RunError if that is another update's."""
        self.flush()
        lines = whole_lines(self.path)
        row = json.loads(lines[-1]) if lines else {}
        if row.get("update") != update:
            raise RunError(f"{self.path} does not end with update {update}")
        lines[-1] = json.dumps({**row, **metrics}, allow_nan=False)
        replace_synced(self.path, "".join(f"{line}\n" for line in lines).encode())

    def flush(self) -> None:
        """Try again what the disk did not take."""
        if self._waiting:
            self._write_waiting()

    def go_back_to(self, global_step: int) -> None:
        """Do nothing: `trim_metrics` cuts the file."""

    def close(self) -> None:
        """Do nothing: no file is open."""


class TensorBoard:
    """Event files for TensorBoard; opened with the first number, because importing it takes a second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: SummaryWriter | None = None
        self._purge_step: int | None = None

    def write(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Write one scalar for each metric, over env steps."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=self._purge_step)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, global_step)

    def amend(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Add scalars at the same step."""
        self.write(update, global_step, metrics)

    def flush(self) -> None:
        """Hand over what is waiting; event files are a view, they need not survive a power cut."""
        if self._writer is not None:
            self._writer.flush()

    def go_back_to(self, global_step: int) -> None:
        """Let TensorBoard leave out points after this step in older files of the folder."""
        self.close()
        self._purge_step = global_step + 1

    def close(self) -> None:
        """Write out what is waiting; writing again opens a new file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def read_rows(folder: str | Path) -> list[dict[str, float]]:
    """Return every update's numbers, in order. A torn last line is left out; raise RunError for any other invalid
    line.
    """
    path = Path(folder) / "metrics.jsonl"
    rows = []
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            row = json.loads(line)
            rows.append({**row, "update": int(row["update"]), "global_step": int(row["global_step"])})
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise RunError(f"{path}: line {number} is no update's metrics") from None
    return rows


def read_metrics(folder: str | Path) -> dict[str, np.ndarray]:
    """Return every metric of a run as an array over its updates, NaN where it did not exist. Raise RunError."""
    return as_columns(read_rows(folder))


def trim_metrics(folder: Path, update: int) -> None:
    """Leave out the lines after `update`, and a torn last one."""
    rows = [row for row in read_rows(folder) if row["update"] <= update]
    if (folder / "metrics.jsonl").exists():
        replace_synced(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


def export_csv(folder: str | Path, path: str | Path) -> None:
    """Write the metrics of a run as a table with a header; empty where one did not exist yet."""
    rows = read_rows(folder)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def as_columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """Convert rows of named numbers to one float64 array for each name, NaN where a row lacks it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows], dtype=np.float64) for name in names}
