"""The folder of a run: its resolved settings and its metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ppo_lab.config import Config
from ppo_lab.config_file import render_yaml
from ppo_lab.errors import RunError
from ppo_lab.runs.metrics import JsonLines, Sink, TensorBoard


class Run:
    """runs/<name>/ with config.yaml, metrics.jsonl and TensorBoard's event files."""

    def __init__(self, folder: Path, tensorboard: bool = True) -> None:
        self.folder = folder
        self.sinks: list[Sink] = [JsonLines(folder / "metrics.jsonl"), *([TensorBoard(folder)] if tensorboard else [])]

    @classmethod
    def create(cls, config: Config) -> Run:
        """A new folder under config.run.root. Raises RunError if the name is taken or nothing can be written there."""
        root = Path(config.run.root or ".")
        try:
            root.mkdir(parents=True, exist_ok=True)
            folder = _new_folder(root, config)
            (folder / "config.yaml").write_text(render_yaml(config), encoding="utf-8")
        except FileExistsError:
            raise RunError(f"run {config.run.name!r} exists already in {root}; choose another run.name") from None
        except OSError as error:
            raise RunError(
                f"cannot write a run under {root}: {error.strerror}; set run.root to another folder"
            ) from None
        return cls(folder, config.run.tensorboard)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def record(self, update: int, global_step: int, metrics: Mapping[str, float]) -> None:
        """One update's numbers, to every sink."""
        for sink in self.sinks:
            sink.write(update, global_step, metrics)

    def close(self) -> None:
        """Close the files; recording again opens them again."""
        for sink in self.sinks:
            sink.close()


def _new_folder(root: Path, config: Config) -> Path:
    if config.run.name is not None:
        folder = root / config.run.name
        folder.mkdir()
        return folder
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", config.preset or config.env.id.removeprefix("ppo_lab/")).strip("-.")[:48]
    number = 1
    while True:
        try:
            folder = root / f"{stem}-{number}"
            folder.mkdir()  # making it is what reserves the name: two processes never get the same
        except FileExistsError:
            number += 1
        else:
            return folder
