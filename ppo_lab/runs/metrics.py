"""Write and read the metrics of every update. metrics.jsonl is the record; TensorBoard files are an optional copy."""

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
    """A destination for the metrics of every update."""

    def write(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of one update."""
        ...

    def amend(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Add metrics to the update that was written last."""
        ...

    def flush(self) -> None:
        """Pass buffered data to the operating system."""
        ...

    def go_back_to(self, global_step: int) -> None:
        """Prepare for a rewind: everything after this step will be written again."""
        ...

    def close(self) -> None:
        """Write buffered data and close files."""
        ...


class JsonLines:
    """metrics.jsonl: one line of JSON per update, {"update": 1, "global_step": 1024, "loss/policy": ...}.

    The file is not kept open between updates.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting = b""  # lines that could not be written, e.g. on a full disk

    def write(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Append one complete line. Raise OSError if that fails; the line is written with the next one then."""
        line = json.dumps({"update": update, "global_step": global_step, **metrics}, allow_nan=False)
        self._waiting += line.encode() + b"\n"
        self._write_waiting()

    def _write_waiting(self) -> None:
        append(self.path, self._waiting)
        self._waiting = b""

    def amend(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Add metrics to the last line. Raise RunError if that line belongs to another update."""
        self.flush()
        lines = whole_lines(self.path)
        row = json.loads(lines[-1]) if lines else {}
        if row.get("update") != update:
            raise RunError(f"{self.path} does not end with update {update}")
        lines[-1] = json.dumps({**row, **metrics}, allow_nan=False)
        replace_synced(self.path, "".join(f"{line}\n" for line in lines).encode())

    def flush(self) -> None:
        """Write the lines that could not be written before."""
        if self._waiting:
            self._write_waiting()

    def go_back_to(self, global_step: int) -> None:
        """Do nothing: `trim_metrics` cuts the file."""

    def close(self) -> None:
        """Do nothing: no file is open."""


class TensorBoard:
    """TensorBoard event files, opened at the first write, because importing TensorBoard takes a second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: SummaryWriter | None = None
        self._purge_step: int | None = None

    def write(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Write one scalar per metric, with env steps as the x axis."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=self._purge_step)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, global_step)

    def amend(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Add scalars at the same step."""
        self.write(update, global_step, metrics)

    def flush(self) -> None:
        """Pass buffered data to the operating system. Without sync: event files need not survive a power cut."""
        if self._writer is not None:
            self._writer.flush()

    def go_back_to(self, global_step: int) -> None:
        """Make TensorBoard ignore points after this step in the older files of the folder."""
        self.close()
        self._purge_step = global_step + 1

    def close(self) -> None:
        """Write buffered data and close the file. The next write opens a new one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def read_rows(folder: str | Path) -> list[dict[str, float]]:
    """Return the metrics of every update, in order. Raise RunError for an invalid line.

    An incomplete last line is left out.
    """
    path = Path(folder) / "metrics.jsonl"
    rows = []
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            row = json.loads(line)
            rows.append({**row, "update": int(row["update"]), "global_step": int(row["global_step"])})
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise RunError(f"{path}: line {number} does not hold the metrics of an update") from None
    return rows


def read_metrics(folder: str | Path) -> dict[str, np.ndarray]:
    """Return each metric of a run as an array (updates,), NaN where an update lacks it.

    Raises RunError for an invalid line of metrics.jsonl.
    """
    return as_columns(read_rows(folder))


def trim_metrics(folder: Path, update: int) -> None:
    """Remove the lines after `update` from metrics.jsonl, and an incomplete last line."""
    rows = [row for row in read_rows(folder) if row["update"] <= update]
    if (folder / "metrics.jsonl").exists():
        replace_synced(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


def export_csv(folder: str | Path, path: str | Path) -> None:
    """Write the metrics of a run to a CSV file with a header, one row per update; a missing metric is an empty cell.

    Raises RunError for an invalid line of metrics.jsonl.
    """
    rows = read_rows(folder)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def as_columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """Convert rows of named numbers to one float64 array (rows,) per name, NaN where a row lacks it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows], dtype=np.float64) for name in names}
