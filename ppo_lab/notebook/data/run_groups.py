"""Find runs to compare, read them from disk, and sort them into groups of seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_lab.config import SECTIONS, Config
from ppo_lab.config.yaml_text import render_scalar
from ppo_lab.errors import ConfigError, RunError
from ppo_lab.runs import Change, RunSummary, read_journal, read_metrics
from ppo_lab.runs.run import find_run, read_config, read_lineage

Runs = str | Path | Iterable[str | Path | RunSummary]  # one run, a folder of runs, or several runs
MOST_SETTINGS = 4  # in the label of a group


class RunOnDisk(NamedTuple):
    """The recorded data of a run."""

    name: str  # the folder's name, or its path if two runs have the same name
    config: Config
    metrics: dict[str, np.ndarray]  # (updates,) each; empty if nothing was recorded
    journal: list[Change]
    parent: str | None
    forked_at: int | None  # env step of its parent at the fork


class Group(NamedTuple):
    """Runs that differ only in their seeds, apart from other `run.*` settings; or a single run."""

    label: str
    runs: list[RunOnDisk]


def find_runs(runs: Runs, root: str | Path = "runs") -> list[Path]:
    """Return the folders of runs, without duplicates. Bare names are searched in `root`. Raises RunError."""
    if isinstance(runs, str | Path) and not Path(runs).exists() and not (Path(root) / runs).exists():
        raise RunError(f"no run or folder of runs at {runs}, and no run {runs} in {root}")
    if not isinstance(runs, str | Path):
        found = [_folder(run.name if isinstance(run, RunSummary) else run, Path(root)) for run in runs]
        if not found:
            raise RunError("no runs given: pass run names, run folders, or a folder that contains runs")
    elif Path(runs).is_dir() and not (Path(runs) / "config.yaml").is_file():
        configs = Path(runs).glob("*/config.yaml")
        found = [path.parent for path in sorted(configs, key=lambda path: path.stat().st_mtime)]  # oldest first
        if not found:
            raise RunError(f"no runs in {runs}")
    else:
        found = [_folder(runs, Path(root))]
    return list({folder.resolve(): folder for folder in found}.values())


def read_runs(runs: Runs, root: str | Path = "runs") -> list[RunOnDisk]:
    """Read the data for a comparison from disk. Raises LabError with one line for a run that cannot be read."""
    folders = find_runs(runs, root)
    count = Counter(folder.name for folder in folders)
    found = []
    for folder in folders:
        lineage = read_lineage(folder)
        found.append(
            RunOnDisk(
                folder.name if count[folder.name] == 1 else str(folder),
                read_config(folder),
                read_metrics(folder),
                read_journal(folder),
                lineage["parent"] if lineage else None,
                lineage["step"] if lineage else None,
            )
        )
    return found


def check_metric(runs: Sequence[RunOnDisk], metric: str) -> None:
    """Raise RunError if no run has recorded anything, ConfigError if no run has the metric."""
    known = sorted({name for run in runs for name in run.metrics} - {"update", "global_step"})
    if not known:
        raise RunError(f"no metrics recorded yet in {', '.join(run.name for run in runs)}: train first")
    waiting = metric.startswith("episode/") and not any(name.startswith("episode/") for name in known)
    if metric not in known and not waiting:  # absent until the first episode has ended, but not unknown
        raise ConfigError(f"no metric {metric!r} in these runs; known: {', '.join(known)}")


def differing(configs: Sequence[Config]) -> list[str]:
    """Return the dotted keys of the settings that differ between configs, without run.name and run.root."""
    return [
        f"{section}.{key}"
        for section, model in SECTIONS.items()
        for key in model.model_fields
        if f"{section}.{key}" not in ("run.name", "run.root")
        and any(setting(config, f"{section}.{key}") != setting(configs[0], f"{section}.{key}") for config in configs)
    ]


def setting(config: Config, key: str) -> Any:
    """Return the value of a dotted key such as "ppo.gamma"."""
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def groups(runs: Sequence[RunOnDisk], metric: str) -> list[Group]:
    """Group runs whose settings differ only in `run.*`; label each group by the settings in which groups differ.

    Runs of a group are seeds of one experiment: they have the same live changes, begin at 0 or at the same checkpoint,
    and no two have the same seed. A run that fits no group is a group alone, and so is one without a value of the
    metric yet: in a group, it would make the mean of the others NaN.
    """
    members: list[list[RunOnDisk]] = []
    waiting = []
    for run in runs:
        if not np.isfinite(run.metrics.get(metric, np.nan)).any():
            waiting.append(Group(run.name, [run]))
            continue
        place = next((group for group in members if _belongs(run, group)), None)
        if place is None:
            members.append([run])
        else:
            place.append(run)
    return [*map(Group, _labels(members), members), *waiting]


def _belongs(run: RunOnDisk, group: Sequence[RunOnDisk]) -> bool:
    """Return whether `run` has the group's settings, parent and live changes, and a seed that the group lacks."""
    first = group[0]
    return (
        all(getattr(run.config, section) == getattr(first.config, section) for section in SECTIONS if section != "run")
        and (run.parent, run.forked_at) == (first.parent, first.forked_at)
        and [change[:5] for change in run.journal] == [change[:5] for change in first.journal]  # from any source
        and all(run.config.run.seed != other.config.run.seed for other in group)
    )


def _labels(members: Sequence[Sequence[RunOnDisk]]) -> list[str]:
    """Return a label for every group; a single run is labelled by its name, and by its settings if there are groups."""
    keys = [key for key in differing([group[0].config for group in members]) if not key.startswith("run.")]
    several = any(len(group) > 1 for group in members)
    labels = [_label(group, keys if several else []) for group in members]
    count = Counter(labels)
    return [
        label if count[label] == 1 else f"{label}, as {group[0].name}"
        for label, group in zip(labels, members, strict=True)
    ]


def _label(group: Sequence[RunOnDisk], keys: Sequence[str]) -> str:
    config = group[0].config
    told = [f"{key} {render_scalar(setting(config, key))}" for key in keys[:MOST_SETTINGS]]
    if len(keys) > MOST_SETTINGS:
        told.append(f"and {len(keys) - MOST_SETTINGS} more")
    lines = "\n".join(told)
    if len(group) == 1:
        return f"{group[0].name}: {lines}" if told else group[0].name
    return f"{lines} ({len(group)} seeds)" if told else f"{len(group)} seeds"


def _folder(run: str | Path, root: Path) -> Path:
    """Return the folder of a run, given by its folder or by its name in `root`."""
    place = Path(run)
    if (place / "config.yaml").is_file() or place.name != str(run):
        return find_run(place)
    return find_run(root / place)
