"""Routes: speed, road slope and target lateral acceleration per row, in the challenge's units."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppo_lab.errors import EnvError

from .rules import CONTROL_START, COST_END, GRAVITY, ROWS

COLUMNS = ("t", "vEgo", "aEgo", "roll", "targetLateralAcceleration", "steerCommand")


@dataclass(frozen=True)
class Routes:
    """N routes of T = 550 rows at 10 Hz, float64, time first. Beyond its end a shorter route repeats its last row.

    The steering of rows 0 to 99 is recorded, not the controller's.
    """

    keys: tuple[str, ...]  # (N,) the seeds of the official noise
    target: np.ndarray  # (T, N) target lateral acceleration, m/s^2; before row 100 also the actual one
    roll: np.ndarray  # (T, N) lateral acceleration caused by the slope of the road, sin(roll) g, m/s^2
    v: np.ndarray  # (T, N) speed, m/s
    a: np.ndarray  # (T, N) acceleration, m/s^2
    steer: np.ndarray  # (T, N) steering of rows 0 to 99, left is negative, the network's sign; then 0

    def take(self, indices: Sequence[int] | np.ndarray) -> Routes:
        """Return the routes with these indices, in this order, as copies with contiguous rows."""
        chosen = np.asarray(indices, np.int64)
        arrays = (np.ascontiguousarray(rows[:, chosen]) for rows in self.arrays())
        return Routes(tuple(self.keys[i] for i in chosen), *arrays)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Return target, roll, v, a, steer, (T, N) each."""
        return self.target, self.roll, self.v, self.a, self.steer

    @property
    def num_routes(self) -> int:
        """Number of routes N."""
        return self.target.shape[1]


def read_routes(folder: str | Path, segments: Sequence[int] | None = None) -> Routes:
    """Read the challenge's CSV files from a folder, in the order of their names.

    segments: (start, stop), a slice of the sorted files; None: all. Keys are `data/<file name>`, as in the official
    command, whatever the name of the folder.
    Raises EnvError if there are no files, or, with the file, if one is not in the challenge's format.
    """
    place = Path(folder)
    files = sorted(place.glob("*.csv"))
    chosen = files[slice(*segments)] if segments is not None else files
    if not chosen:
        what = f"no segments {tuple(segments)} of {len(files)}" if segments is not None and files else "no .csv files"
        raise EnvError(f"routes: {what} in {place}; give the folder with the challenge's NNNNN.csv")
    arrays = (np.stack(columns, axis=1) for columns in zip(*map(_read, chosen), strict=True))
    return Routes(tuple(f"data/{path.name}" for path in chosen), *arrays)


def write_routes(routes: Routes, folder: str | Path) -> None:
    """Write routes as the challenge's CSV files, named by their keys; `steerCommand` ends with row 99."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for i, key in enumerate(routes.keys):
        target, roll, v, a, steer = (rows[:, i].tolist() for rows in routes.arrays())
        with (place / Path(key).with_suffix(".csv").name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for t in range(len(target)):
                command = -steer[t] if t < CONTROL_START else ""
                writer.writerow([t / 10, v[t], a[t], float(np.arcsin(roll[t] / GRAVITY)), target[t], command])


def _read(path: Path) -> tuple[np.ndarray, ...]:
    """Read one file: target, roll, v, a, steer, (T,) each."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    if tuple(header) != COLUMNS:
        raise EnvError(f"{path}: the header is {','.join(header)[:100]}; a segment has {','.join(COLUMNS)}")
    if len(lines) < COST_END:
        raise EnvError(f"{path}: {len(lines)} rows; a segment has at least {COST_END}")
    try:
        numbers = np.array([[float(cell or "nan") for cell in line] for line in lines[:ROWS]]).T  # (6, rows)
    except ValueError as error:
        raise EnvError(f"{path}: {error}; a segment holds {len(COLUMNS)} numbers in each line") from None
    if numbers.shape[0] != len(COLUMNS):
        raise EnvError(f"{path}: lines of {numbers.shape[0]} cells; a segment has {len(COLUMNS)}")
    _, v, a, roll, target, command = np.pad(numbers, ((0, 0), (0, ROWS - numbers.shape[1])), mode="edge")
    if not (np.isfinite([v, a, roll, target]).all() and np.isfinite(command[:CONTROL_START]).all()):
        raise EnvError(f"{path}: an empty cell where a number is required (steerCommand may be empty from row 100 on)")
    steer = np.where(np.arange(ROWS) < CONTROL_START, -command, 0.0)
    return target, np.sin(roll) * GRAVITY, v, a, steer
