"""Where the numbers of every update go: metrics.jsonl, which is the truth, and TensorBoard, which is a view."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Sink(Protocol):
    """Something that takes the numbers of every update."""

    def write(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Take one update's numbers."""
        ...

    def close(self) -> None:
        """Write out what is waiting and let go of files."""
        ...


class JsonLines:
    """One line of JSON an update: {"update": 1, "global_step": 1024, "loss/policy": ...}."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def write(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Append one line, whole, and hand it to the operating system."""
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8")
        line = json.dumps({"update": update, "global_step": global_step, **metrics}, allow_nan=False)
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; writing again opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class TensorBoard:
    """Event files for TensorBoard; opened with the first number, because importing it takes a second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: SummaryWriter | None = None

    def write(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """One scalar a metric, over env steps."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder))
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, global_step)

    def close(self) -> None:
        """Write out what is waiting; writing again opens a new file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def read_metrics(folder: str | Path) -> dict[str, np.ndarray]:
    """Every metric of a run as an array over its updates, NaN where it did not exist. A torn last line is left out."""
    rows = []
    for line in (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the process ended in the middle of a line: what follows, if anything, is not to be trusted
    return as_columns(rows)


def as_columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """Rows of named numbers as one float64 array a name, NaN where a row lacks it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows], dtype=np.float64) for name in names}
