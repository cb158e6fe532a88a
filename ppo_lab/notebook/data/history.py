"""The metrics of a run so far, as growing columns."""

from __future__ import annotations

import math
import threading
from array import array

import numpy as np

from ppo_lab.training.trainer import Update


class History:
    """The metrics of every update. One thread appends, any thread reads; eight bytes per number."""

    def __init__(self) -> None:
        self._columns: dict[str, array[float]] = {"update": array("d"), "global_step": array("d")}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._columns["update"])

    def append(self, update: Update) -> None:
        """Append one update; a metric that it lacks becomes NaN."""
        row = {"update": update.update, "global_step": update.global_step, **update.metrics}
        with self._lock:
            length = len(self)
            for name in row.keys() - self._columns.keys():
                self._columns[name] = array("d", [math.nan]) * length
            for name, column in self._columns.items():
                column.append(row.get(name, math.nan))

    def until(self, update: int) -> History:
        """Return a copy that ends with this update."""
        shorter = History()
        with self._lock:
            length = sum(number <= update for number in self._columns["update"])
            shorter._columns = {name: column[:length] for name, column in self._columns.items()}
        return shorter

    def columns(self) -> dict[str, np.ndarray]:
        """Return a copy of every metric as an array over the updates so far, as `ppo_lab.runs.read_metrics` does."""
        with self._lock:
            return {name: np.array(column) for name, column in self._columns.items()}

    def last(self, name: str) -> float:
        """Return the newest value, NaN if there is none."""
        with self._lock:
            column = self._columns.get(name)
            return column[-1] if column else math.nan
