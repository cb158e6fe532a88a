"""Run notebooks headlessly, with a progress bar and a summary in the terminal.

    python -m ppo_lab.notebook.headless.execute notebooks/01_train.ipynb -p preset pendulum -p seed 3
    python -m ppo_lab.notebook.headless.execute --regenerate notebooks/*.ipynb

The first saves the executed notebook in the folder of its run; the second is for the committed notebooks
(`ppo_lab.notebook.headless.committed`). Both use the kernel of the Python they run in.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellExecutionError
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from ppo_lab.config.loading import flat
from ppo_lab.config.yaml_text import parse_yaml, render_scalar
from ppo_lab.errors import ConfigError, LabError
from ppo_lab.notebook.headless.committed import KERNEL_OPTIONS, regenerate
from ppo_lab.notebook.live.report import ANNOUNCE, SUMMARY, Report

POLL_SECONDS = 0.2


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 for an error, 130 for Ctrl-C, 143 for SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m ppo_lab.notebook.headless.execute", description="Run notebooks headlessly."
    )
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter of the notebook, the value in YAML; repeatable",
    )
    parser.add_argument(
        "--regenerate", action="store_true", help="execute in place and stamp with the hash of the sources"
    )
    given = parser.parse_args(arguments)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # prefer this Python's kernel to the user's
    os.environ.pop("JUPYTER_PATH", None)
    stopped_by = signal.SIGINT

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped_by
        stopped_by = signal.Signals(number)
        raise KeyboardInterrupt  # papermill then interrupts the kernel, which saves the run

    before = signal.signal(signal.SIGTERM, stop) if threading.current_thread() is threading.main_thread() else None
    try:
        for path in given.notebooks:
            if given.regenerate:
                regenerate(path)
                print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
            else:
                print(execute(path, {name: parse_yaml(value) for name, value in given.parameter}))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + stopped_by
    except Exception as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return 1
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    return 0


def execute(path: Path, parameters: dict[str, Any]) -> str:
    """Run one notebook, save the executed one in the folder of its run, and return a summary.

    Raises ConfigError for a parameter that the notebook does not have, and NotebookError if a cell raised.
    """
    _check_parameters(path, parameters)
    folder = Path(tempfile.mkdtemp(prefix="ppo_lab-"))
    try:
        os.environ[ANNOUNCE] = str(folder / "run.json")
        executed = folder / "notebook.ipynb"
        with Progress(folder / "run.json") as progress:
            try:
                given = {name: with_tuples(value) for name, value in parameters.items()}
                papermill.execute_notebook(str(path), str(executed), given, progress_bar=False, **KERNEL_OPTIONS)
            except PapermillExecutionError as error:
                where = f"cell [{error.exec_count}] of {path}"
                if progress.run is not None:
                    where += f"; partly executed notebook: {_keep(executed, progress.run)}"
                raise NotebookError(f"{error.ename}: {_first_line(error.evalue)} ({where})") from None
            except KeyboardInterrupt:
                if progress.run is not None:
                    tqdm.write(f"partly executed notebook: {_keep(executed, progress.run)}", file=sys.stderr)
                raise
        return _summary(progress.run, _keep(executed, progress.run or Path("runs") / path.stem))
    finally:
        os.environ.pop(ANNOUNCE, None)
        shutil.rmtree(folder, ignore_errors=True)


class NotebookError(LabError, RuntimeError):
    """An exception in a cell of the notebook."""


class Progress:
    """A progress bar that follows the run that a notebook announces, by reading its growing metrics file."""

    def __init__(self, announced: Path) -> None:
        self.run: Path | None = None  # the run's folder, once it is known
        self._announced = announced
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        pause = POLL_SECONDS if sys.stderr.isatty() else 5.0  # fewer lines in a log file
        self._bar = tqdm(desc="starting", unit=" steps", unit_scale=True, mininterval=pause, maxinterval=pause)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._bar.close()

    def _follow(self) -> None:
        while not self._announced.exists():
            if self._over.wait(POLL_SECONDS):
                return
        about = json.loads(self._announced.read_text(encoding="utf-8"))
        self.run = Path(about["run"])
        self._bar.total = about["total_timesteps"]
        self._bar.set_description("training")
        metrics = self.run / "metrics.jsonl"
        unread = 0  # offset of the first unread byte
        while not self._over.wait(POLL_SECONDS):
            unread = self._read(metrics, unread)
        self._read(metrics, unread)

    def _read(self, metrics: Path, start: int) -> int:
        """Show the last complete line after byte `start`; return the offset of its end."""
        if not metrics.exists():
            return start
        with metrics.open("rb") as file:
            file.seek(start)
            whole, newline, _ = file.read().rpartition(b"\n")
        if not newline:
            return start
        last = json.loads(whole.rpartition(b"\n")[2])
        if "episode/return_mean" in last:
            self._bar.set_postfix_str(f"return {last['episode/return_mean']:.1f}", refresh=False)
        if last["global_step"] >= self._bar.total:
            self._bar.set_description("evaluating", refresh=False)
        self._bar.update(min(last["global_step"], self._bar.total) - self._bar.n)
        return start + len(whole) + 1


def error_line(error: Exception) -> str:
    """Format an error as one line: a LabError by its text, any other by its type and first line."""
    if isinstance(error, CellExecutionError):
        return f"{error.ename}: {_first_line(error.evalue)}"
    text = _first_line(str(error))
    return text if isinstance(error, LabError) else f"{type(error).__name__}: {text}"


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _check_parameters(path: Path, parameters: dict[str, Any]) -> None:
    if not path.is_file() or path.suffix != ".ipynb":
        raise ConfigError(f"no notebook (.ipynb file) at {path}")
    try:
        known = papermill.inspect_notebook(str(path))
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ConfigError(f"{path} is not a notebook: {_first_line(str(error))}") from None
    unknown = sorted(parameters.keys() - known.keys())
    if unknown:
        raise ConfigError(f"{path} has no parameter {unknown[0]!r}; parameters: {', '.join(known) or 'none'}")


def with_tuples(value: Any) -> Any:
    """Convert a parameter so that it contains no tuples, which papermill would turn into strings.

    A dict with tuples becomes a flat one, in which settings that contain a tuple are YAML text.
    """
    if not isinstance(value, dict) or not _holds_tuple(value):
        return value
    settings = flat(value).items()
    return {key: render_scalar(one, tuples=True) if _holds_tuple(one) else one for key, one in settings}


def _holds_tuple(value: Any) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, tuple) or any(map(_holds_tuple, inside))


def _keep(executed: Path, folder: Path) -> Path:
    """Move the executed notebook to `folder`, and return its new path."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.move(executed, folder / "notebook.ipynb")
    return Path(os.path.relpath(folder / "notebook.ipynb"))


def _summary(run: Path | None, notebook: Path) -> str:
    lines = []
    if run is not None and (run / SUMMARY).exists():
        about = json.loads((run / SUMMARY).read_text(encoding="utf-8"))
        lines.append(str(Report(**{**about, "run": os.path.relpath(run)})))
    return "\n".join([*lines, f"{'notebook':<12} {notebook}"])


if __name__ == "__main__":
    sys.exit(main())
