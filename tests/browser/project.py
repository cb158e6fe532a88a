"""A project folder like a user's: config.yaml, notebooks, and the runs they make."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ppo_lab.runs.journal import Change, read_journal

# a run that continues until it is stopped, and saves only on request
ENDLESS = {"ppo.total_timesteps": 1_000_000_000, "run.checkpoint_every": 0}


class Project:
    """A folder with config.yaml and copies of notebooks; all methods read the runs from disk."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self._checkout, self.folder = checkout, folder
        (folder / "notebooks").mkdir(parents=True)
        shutil.copy(checkout / "config.yaml", folder)

    def add_notebook(self, name: str, copy: str, parameters: dict[str, Any]) -> Path:
        """Add a copy of a committed notebook, without outputs, with other values for its parameters."""
        notebook = json.loads((self._checkout / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None
            if "parameters" in cell["metadata"].get("tags", ()):
                lines = [f"{key} = {value!r}" for key, value in parameters.items()]
                cell["source"] = "\n".join(["".join(cell["source"]), *lines])
        path = self.folder / "notebooks" / f"{copy}.ipynb"
        path.write_text(json.dumps(notebook), encoding="utf-8")
        return path

    @property
    def runs(self) -> list[Path]:
        """Folders of the runs, oldest first."""
        return sorted((path.parent for path in self.folder.glob("runs/*/config.yaml")), key=lambda p: p.stat().st_ctime)

    @property
    def forks(self) -> list[Path]:
        """Folders of the forked runs, oldest first."""
        return [run for run in self.runs if (run / "lineage.json").exists()]

    def journal(self, run: Path | None = None) -> list[Change]:
        """Return the live changes of a run; without an argument, of the only run."""
        return read_journal(run or self._only())

    def rows(self, run: Path | None = None) -> list[dict[str, Any]]:
        """Return the metrics of a run's updates so far."""
        path = (run or self._only()) / "metrics.jsonl"
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0] if path.exists() else ""
        return [json.loads(line) for line in whole.splitlines()]

    def checkpoints(self, run: Path | None = None) -> list[int]:
        """Return the steps at which a run has complete checkpoints, ascending."""
        place = (run or self._only()) / "checkpoints"
        return sorted(int(path.parent.name) for path in place.glob("[0-9]*/MANIFEST.json"))

    def _only(self) -> Path:
        (run,) = self.runs
        return run
