"""A table of the differences between runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ppo_lab.config.yaml_text import render_scalar
from ppo_lab.notebook.data.run_groups import RunOnDisk, Runs, differing, read_runs, setting
from ppo_lab.runs import Change

MOST_CHANGES = 3  # live changes that are listed; the rest is counted


@dataclass(frozen=True)
class Differences:
    """A table of differences by run. A notebook shows it as a table, `print` as text."""

    runs: list[str]
    rows: dict[str, list[str]]  # "ppo.gamma" -> its value in every run; "parent", "changed live" if any

    def __str__(self) -> str:
        if not self.rows:
            return f"no settings differ: {', '.join(self.runs)}"
        table = [["", *self.runs], *([name, *values] for name, values in self.rows.items())]
        widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        if not self.rows:
            return str(self)
        table = [["", *map(_code, self.runs)], ["---"] * (len(self.runs) + 1)]
        table += [[_code(name) if "." in name else name, *map(_code, values)] for name, values in self.rows.items()]
        return "\n".join(f"| {' | '.join(row)} |" for row in table)


def differences(runs: Runs = "runs", root: str | Path = "runs") -> Differences:
    """Return the settings in which runs differ, the parent of each fork, and the live changes.

    runs: a folder of runs, or several runs, each by its folder, its name in `root`, or its entry of `list_runs`.
    Raises LabError if there are none, or if one cannot be read.
    """
    return tell_apart(read_runs(runs, root))


def tell_apart(found: Sequence[RunOnDisk]) -> Differences:
    """Return the differences between runs that were read already."""
    rows = {"parent": [f"{run.parent} at {run.forked_at:,}" if run.parent else "" for run in found]}
    for key in differing([run.config for run in found]):
        rows[key] = [render_scalar(setting(run.config, key)) for run in found]
    rows["changed live"] = [_changes(run.journal) for run in found]
    return Differences([run.name for run in found], {name: row for name, row in rows.items() if any(row)})


def _changes(journal: Sequence[Change]) -> str:
    told = [
        f"{change.key} {render_scalar(change.old)} -> {render_scalar(change.new)} at {change.global_step:,}"
        for change in journal[:MOST_CHANGES]
    ]
    if len(journal) > MOST_CHANGES:
        told.append(f"{len(journal) - MOST_CHANGES} more")
    return "; ".join(told)


def _code(text: str) -> str:
    """Format text as Markdown code, so that underscores and bars stay literal."""
    return "`{}`".format(text.replace("`", "'").replace("|", "\\|")) if text else ""
