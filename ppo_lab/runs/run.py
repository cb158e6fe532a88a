"""The folder of a run: resolved settings, metrics, journal, checkpoints and lineage, protected by a lock."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ppo_lab.config import RUN_NAME, Config
from ppo_lab.config.loading import load_config, render_yaml
from ppo_lab.errors import RunError
from ppo_lab.runs import checkpoint
from ppo_lab.runs.files import disk, replace, replace_synced
from ppo_lab.runs.journal import Change, append_changes, read_journal, write_journal
from ppo_lab.runs.lock import RunLock
from ppo_lab.runs.metrics import JsonLines, Sink, TensorBoard, trim_metrics


class Run:
    """The folder runs/<name>/, locked for this trainer until `close`."""

    def __init__(self, folder: Path, config: Config) -> None:
        """Open and lock the folder. Raise RunError if another trainer holds it."""
        self.folder, self.config = folder, config
        self.forked_at = forked_at(folder)
        with disk(f"write in {folder}"):
            self._lock = RunLock(folder)
        tensorboard = [TensorBoard(folder)] if config.run.tensorboard else []
        self.sinks: list[Sink] = [JsonLines(folder / "metrics.jsonl"), *tensorboard]
        for place in (folder, self.checkpoints):
            checkpoint.sweep(place)

    @classmethod
    def create(cls, config: Config, lineage: Mapping[str, Any] | None = None) -> Run:
        """Create a run folder in config.run.root and lock it. lineage: where a fork was forked from.

        Raises RunError if the name is taken or the folder cannot be written.
        """
        root = Path(config.run.root or ".")
        try:
            root.mkdir(parents=True, exist_ok=True)
            folder = _new_folder(root, config, lineage)
            try:
                replace_synced(folder / "config.yaml", render_yaml(config).encode())
                if lineage is not None:
                    replace_synced(folder / "lineage.json", json.dumps(lineage, indent=1).encode())
                return cls(folder, config)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)  # so that the name can be used again
                raise
        except RunError:
            raise
        except OSError as error:
            reason = f"cannot write a run under {root}: {error.strerror or error}"
            raise RunError(f"{reason}; set run.root to another folder") from None

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open an existing run to continue it. Raise RunError if there is none or it is in use."""
        path = find_run(folder)
        return cls(path, read_config(path))

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    def settle(self, config: Config, lineage: Mapping[str, Any]) -> None:
        """Write the settings and lineage again, before training starts. Raise RunError if that fails.

        For settings that were not known yet when the folder was created.
        """
        with disk(f"write the settings of {self.folder}"):
            replace_synced(self.folder / "config.yaml", render_yaml(config).encode())
            replace_synced(self.folder / "lineage.json", json.dumps(lineage, indent=1).encode())
        self.config = config

    def record(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of one update to every sink. Raise RunError if one fails."""
        with disk(f"write the metrics of {self.folder}"), ExitStack() as every:
            for sink in self.sinks:  # on a stack, so that all are called even if one fails
                every.callback(sink.write, update, global_step, metrics)

    def write_down(self, changes: list[Change]) -> None:
        """Write live changes to the journal, all or none. Raise RunError if that fails."""
        with disk(f"write the journal of {self.folder}"):
            append_changes(self.folder, changes)

    def inherit(self, changes: list[Change]) -> None:
        """Start the journal of a fork with the changes in the parent before the fork. Raise RunError on failure."""
        with disk(f"write the journal of {self.folder}"):
            write_journal(self.folder, changes)

    def go_back_to(self, update: int, global_step: int) -> None:
        """Remove the metrics after `update`, since training continues from there. The journal is kept.

        Raises RunError if the files cannot be written.
        """
        with disk(f"write in {self.folder}"):
            trim_metrics(self.folder, update)
            write_journal(self.folder, read_journal(self.folder))  # removes an incomplete last line
            for sink in self.sinks:
                sink.go_back_to(global_step)

    def amend(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """Add metrics to the last update, which was recorded already. Raise RunError if that fails."""
        with disk(f"write the metrics of {self.folder}"), ExitStack() as every:
            for sink in self.sinks:
                every.callback(sink.amend, update, global_step, metrics)

    def save(self, step: int, tree: checkpoint.CheckpointTree, score: float | None, renew: bool = False) -> Path:
        """Save a checkpoint, update the files `latest` and `best`, and remove old checkpoints. Return its path.

        Which ones are kept is set in config.run. score: for `best`, the higher the better; None: not known.
        renew: replace a whole checkpoint of this step, if there is one. Raises RunError if something cannot be written.
        """
        with disk(f"write the metrics of {self.folder}"):
            for sink in self.sinks:
                sink.flush()
            lines = self.folder / "metrics.jsonl"  # on disk, the metrics must not be older than the checkpoint
            also = [lines] if lines.exists() else []
            path = checkpoint.save_checkpoint(self.checkpoints, step, tree, also, renew)
        with disk(f"write in {self.folder}, but {path} is saved"):
            replace(self.folder / "latest", f"{step}\n".encode())
            best = read_best(self.folder)
            if score is not None and (
                best is None or score > best["score"] or not (self.checkpoints / str(best["step"])).exists()
            ):
                best = {"step": step, "score": score}
                replace_synced(
                    self.folder / "best", json.dumps(best).encode()
                )  # synced, because it protects that checkpoint from being pruned
            settings = self.config.run
            protect = {step} if best is None else {step, best["step"]}  # this step, too: later ones may be broken
            if self.forked_at is not None:
                protect.add(self.forked_at)  # the replay of a fork starts there
            checkpoint.prune(self.checkpoints, settings.keep_last, settings.keep_every, protect)
        return path

    def close(self) -> None:
        """Close the files and release the lock."""
        for sink in self.sinks:
            sink.close()
        self._lock.release()

    def discard(self) -> None:
        """Remove the folder and close the run, for a run that failed before it started."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.close()


def find_run(place: str | Path) -> Path:
    """Return the folder of a run given by its path. Raise RunError if there is none; it lists the runs next to it."""
    folder = Path(place)
    if (folder / "config.yaml").is_file():
        return folder
    beside = sorted(path.parent.name for path in folder.parent.glob("*/config.yaml"))
    raise RunError(f"no run at {folder}; runs in {folder.parent}: {', '.join(beside) or 'none'}")


def look_up_run(place: str | Path) -> Path:
    """Return the folder of a run given by its path, or by its name in run.root of config.yaml.

    Raises RunError if there is none.
    """
    path = Path(place)
    if not (path / "config.yaml").is_file() and path.name == str(place):
        path = run_root() / path
    return find_run(path if path.name not in ("", "..") else path.resolve())  # Path(".").name is ""


def run_root() -> Path:
    """Return the folder of all runs: run.root of the nearest config.yaml."""
    return Path(load_config().run.root or "runs")


def read_config(folder: Path) -> Config:
    """Return the settings of a run, with run.root and run.name of its current folder.

    Raises RunError if the folder's name is not a valid run name, ConfigError for invalid settings.
    """
    config = load_config(folder / "config.yaml", renamed=True)
    if not RUN_NAME.fullmatch(folder.name):
        raise RunError(f"{folder.name!r} is not a valid name of a run")
    return config.model_copy(
        update={"run": config.run.model_copy(update={"root": str(folder.parent), "name": folder.name})}
    )


def read_best(folder: Path) -> dict[str, Any] | None:
    """Return {"step": ..., "score": ...} of the best checkpoint; None if it is not known or cannot be read."""
    try:
        best = json.loads((folder / "best").read_text(encoding="utf-8"))
        return {"step": int(best["step"]), "score": float(best["score"])}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None  # the file is only a hint, so a damaged one is no error


def read_lineage(folder: Path) -> dict[str, Any] | None:
    """Return where a run was forked from: {parent, step, update, fingerprint, changes}; None if it is not a fork.

    Raises RunError if lineage.json is invalid.
    """
    try:
        lineage: dict[str, Any] = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))
        if not isinstance(lineage["step"], int):
            raise TypeError
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RunError(f"{folder / 'lineage.json'} cannot be read") from None
    return lineage


def forked_at(folder: Path) -> int | None:
    """Return the env step at which a fork starts; None if the run is not a fork. Raise RunError as `read_lineage`."""
    lineage = read_lineage(folder)
    return None if lineage is None else int(lineage["step"])


def find_checkpoint(folder: Path, at: int | str = "latest") -> tuple[Path, list[str]]:
    """Return the path of the checkpoint at a step, "best" or "latest", and why others were skipped.

    Only whole checkpoints are returned. "best" falls back to the latest one if it is not known or not whole.
    Raises RunError if there is no such checkpoint, or it is damaged.
    """
    place = folder / "checkpoints"
    steps = checkpoint.checkpoints(place)
    if at == "latest":
        step, passed = checkpoint.newest_whole(place)
        if step is None:
            reasons = f": {'; '.join(passed)}" if passed else ""
            raise RunError(f"run {folder} has no whole checkpoint{reasons}")
        return place / str(step), passed
    if at == "best":
        best = read_best(folder)
        problem = checkpoint.problem_of(place / str(best["step"])) if best else f"run {folder} has no best checkpoint"
        if best and not problem:
            return place / str(best["step"]), []
        path, passed = find_checkpoint(folder)
        return path, [problem, *passed]
    if at not in steps:
        raise RunError(f"run {folder} has no checkpoint at {at!r}; available: {', '.join(map(str, steps)) or 'none'}")
    if problem := checkpoint.problem_of(place / str(at)):
        raise RunError(problem)
    return place / str(at), []


def _new_folder(root: Path, config: Config, lineage: Mapping[str, Any] | None) -> Path:
    if config.run.name is not None:
        folder = root / config.run.name
        try:
            folder.mkdir()
        except FileExistsError:
            taken = f"run {config.run.name!r} already exists in {root}"
            raise RunError(f"{taken}; choose another run.name, or resume or fork it") from None
        return folder
    named_after = f"{lineage['parent']}-fork" if lineage else config.preset or config.env.id.removeprefix("ppo_lab/")
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", named_after).strip("-.")[:48]
    number = 1
    while True:
        try:
            folder = root / f"{stem}-{number}"
            folder.mkdir()  # creating the folder reserves the name, so that two processes never get the same one
        except FileExistsError:
            number += 1
        else:
            return folder
