"""A table of all runs in a folder: environment, progress, best score, state, and which run was forked from which."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ppo_lab.config import Config
from ppo_lab.errors import LabError
from ppo_lab.runs.checkpoint import checkpoints
from ppo_lab.runs.journal import Change, read_journal
from ppo_lab.runs.lock import is_locked
from ppo_lab.runs.metrics import read_rows
from ppo_lab.runs.run import read_best, read_config, read_lineage


class RunSummary(NamedTuple):
    """One run, as a row of the table."""

    name: str
    env: str
    steps: int  # env steps recorded
    total: int  # the total of env steps, as configured or extended
    best: float | None  # score of the best checkpoint
    state: str  # "running", "finished", "stopped" (resume it), "no checkpoint", or "unreadable: why"
    parent: str | None
    forked_at: int | None  # env step of the parent at which it was forked


def list_runs(root: str | Path = "runs") -> list[RunSummary]:
    """List all runs in `root`, oldest first. A run that cannot be read is listed with the reason as its state."""
    places = [path.parent for path in Path(root).glob("*/config.yaml")]
    return [summarize(folder) for folder in sorted(places, key=lambda place: (place / "config.yaml").stat().st_mtime)]


def summarize(folder: Path) -> RunSummary:
    """Summarize the run in `folder`. If it cannot be read, its state says why."""
    try:
        config, lineage = read_config(folder), read_lineage(folder)
        total = _total(config, lineage, read_journal(folder))
        rows = read_rows(folder)
    except (LabError, OSError) as error:
        return RunSummary(folder.name, "?", 0, 0, None, f"unreadable: {error}", None, None)
    steps = int(rows[-1]["global_step"]) if rows else lineage["step"] if lineage else 0
    best = read_best(folder)
    state = "stopped" if checkpoints(folder / "checkpoints") else "no checkpoint"
    if is_locked(folder):
        state = "running"
    elif steps >= total:
        state = "finished"
    return RunSummary(
        folder.name, config.env.id, steps, total, best["score"] if best else None, state,
        lineage["parent"] if lineage else None, lineage["step"] if lineage else None,
    )  # fmt: skip


def lineage(root: str | Path = "runs") -> dict[str, list[str]]:
    """Return the tree of runs in `root`: {name: names of its forks}. A run whose parent is not there is a root."""
    summaries = list_runs(root)
    tree: dict[str, list[str]] = {run.name: [] for run in summaries}
    for run in summaries:
        if run.parent in tree:
            tree[run.parent].append(run.name)
    return tree


def _total(config: Config, lineage: dict[str, Any] | None, journal: list[Change]) -> int:
    """Return the total of env steps, as configured or extended. A fork inherits it unless its settings change it."""
    own = lineage is not None and "ppo.total_timesteps" in lineage["changes"]
    begin = lineage["update"] if lineage is not None and own else 0
    extended = [change.new for change in journal if change.key == "total_timesteps" and change.update > begin]
    return int(extended[-1]) if extended else config.ppo.total_timesteps
