"""Run the challenge's own evaluation of an exported controller, in the user's clone of the challenge."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from ppo_lab.errors import RunError
from ppo_lab.runs.files import disk, replace

from .controller_file import FIRST_LINE

MODEL, DATA, REPORT = "models/tinyphysics.onnx", "data", "report.html"  # in the clone
COSTS = ("lataccel_cost", "jerk_cost", "total_cost")


def official_eval(
    file: str | Path, clone: str | Path, num_segments: int = 100, python: str | Path = sys.executable
) -> dict[str, dict[str, float]]:
    """Copy an exported controller into the clone's `controllers/` and run `eval.py` there, with PID as the baseline.

    Runs the documented command in the clone, with its model and data, so the noise is the official one. The costs in
    `report.html` have three decimals.

    Args:
        file: A file written by `export_controller`; its name without `.py` is the controller's.
        clone: The folder with `eval.py`, `models/tinyphysics.onnx` and `data/`.
        num_segments: Number of segments, from the first on.
        python: An interpreter in which the challenge's requirements are installed.

    Returns: {"test": {"lataccel_cost", "jerk_cost", "total_cost"}, "baseline": the same of PID}.

    Raises RunError: Something is missing in the clone, the name is taken there, or `eval.py` failed (its last line).
    """
    source, place = Path(file), Path(clone)
    for part in ("eval.py", "controllers", MODEL, DATA):
        if not (place / part).exists():
            raise RunError(f"{place} is not a complete clone of the challenge: {part} is missing")
    name, target = source.stem, place / "controllers" / source.name
    if not name.isidentifier() or source.suffix != ".py":
        raise RunError(f"{source.name}: the challenge imports controllers by name, such as ppo.py")
    with disk(f"copy {source} to {target}"):
        text = source.read_bytes()
        ours = not target.exists() or target.read_bytes().startswith(FIRST_LINE.encode())
        if not ours:
            raise RunError(f"{target} exists and was not exported by ppo_lab: export under another name")
        replace(target, text)
        (place / REPORT).unlink(missing_ok=True)  # an old one must not be taken for the new one
    command = [str(python), "eval.py", "--model_path", f"./{MODEL}", "--data_path", f"./{DATA}"]
    command += ["--num_segs", str(num_segments), "--test_controller", name, "--baseline_controller", "pid"]
    with disk(f"run {python}"):
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode or not (place / REPORT).is_file():
        last = (done.stderr.strip() or done.stdout.strip() or "it wrote no report").splitlines()[-1]
        raise RunError(f"eval.py in {place} ended with code {done.returncode}: {last[:300]}")
    return read_report(place / REPORT)


def read_report(path: Path) -> dict[str, dict[str, float]]:
    """Read the table of mean costs in a `report.html`. Raises RunError if it has none."""
    cells = _Cells()
    cells.feed(path.read_text(encoding="utf-8"))
    rows = [row for row in cells.rows if row]
    header = next((row for row in rows if row[0] == "controller"), None)
    if header is None or not set(COSTS) <= set(header):
        raise RunError(f"{path} has no table with controller, {', '.join(COSTS)}")
    named = [dict(zip(header, row, strict=True)) for row in rows if row is not header and len(row) == len(header)]
    return {row["controller"]: {cost: float(row[cost]) for cost in COSTS} for row in named}


class _Cells(HTMLParser):
    """Collects the text of all table cells, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        self._inside = tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside and self.rows:
            self.rows[-1].append(data.strip())
