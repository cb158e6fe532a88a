"""What `runs` and `show` print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ppo_lab.config import Config
from ppo_lab.config.loading import differences, setting_text
from ppo_lab.config.yaml_text import render_scalar
from ppo_lab.errors import LabError
from ppo_lab.runs import Change, list_runs, read_journal
from ppo_lab.runs.checkpoint import checkpoints, load_checkpoint, problem_of
from ppo_lab.runs.metrics import read_rows
from ppo_lab.runs.run import find_checkpoint, read_best, read_config, read_lineage
from ppo_lab.runs.table import RunSummary, summarize
from ppo_lab.training.continuity import check_folder

HEADER = ("name", "env", "steps", "best", "state", "parent")


def runs_table(root: Path) -> str:
    """Format one line for each run, oldest first."""
    runs = list_runs(root)
    if not runs:
        return f"no runs in {root}"
    rows = [(run.name, run.env, steps_of(run), best_of(run), run.state, parent_of(run)) for run in runs]
    return aligned([HEADER, *rows])


def steps_of(run: RunSummary) -> str:
    """Format how far a run got, of how far it goes."""
    return f"{run.steps:,} / {run.total:,}" if run.total else ""


def best_of(run: RunSummary) -> str:
    """Format the score of its best checkpoint."""
    return f"{run.best:.1f}" if run.best is not None else ""


def parent_of(run: RunSummary) -> str:
    """Format where it was forked from."""
    return f"{run.parent} at {run.forked_at:,}" if run.parent is not None else ""


def show_run(folder: Path) -> str:
    """Describe one run: settings, lineage, journal, checkpoints, last metrics. Raise LabError if it is unreadable."""
    config, summary = read_config(folder), summarize(folder)
    changes = read_journal(folder)
    about = [("run", str(folder)), ("env", config.env.id), ("state", summary.state), ("steps", steps_of(summary))]
    if summary.best is not None:
        about.append(("best", best_of(summary)))
    about += _identity(folder, config)
    texts = {key: [setting_text(one, *key.split(".")) for one in (config, Config())] for key, _ in _changed(config)}
    settings = [(key, now, f"default {was}") for key, (now, was) in texts.items()]
    sections: list[tuple[str, list[Any]]] = [
        ("settings that differ from the defaults", settings),
        ("lineage", _lineage(folder)),
        ("journal", [_change(change) for change in changes]),
        ("checkpoints", _checkpoints(folder)),
        ("last metrics", _last_metrics(folder)),
    ]
    return "\n\n".join(
        [aligned(about), *(f"{title}\n{aligned(rows or [('none',)], '  ')}" for title, rows in sections)]
    )


def aligned(rows: list[Any], indent: str = "") -> str:
    """Format rows of texts in columns of equal width."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False)) for row in rows)
    return "\n".join(indent + line.rstrip() for line in lines)


def _changed(config: Config) -> list[tuple[str, list[Any]]]:
    return list(differences(Config(), config).items())


def _identity(folder: Path, config: Config) -> list[tuple[str, str]]:
    """Return the fingerprint of the newest whole checkpoint, whether a resume is exact, the engine, and later edits."""
    try:
        saved = load_checkpoint(find_checkpoint(folder)[0])
    except LabError:
        return []  # the list of checkpoints says why
    about = saved["about"]
    exact = "yes" if about["exact_resume"] else f"no: {about['inexact_because']}"
    rows = [("fingerprint", f"{about['fingerprint']} at {saved['global_step']:,}"), ("exact resume", exact)]
    if "engine" in about:  # not in those of older versions
        rows.append(("engine", about["engine"]))
    try:
        check_folder(folder, config, saved)
    except LabError as error:
        rows.append(("edited", str(error)))
    return rows


def _lineage(folder: Path) -> list[tuple[str, ...]]:
    """Return the ancestors, the nearest first, then the forks."""
    rows: list[tuple[str, ...]] = []
    seen, place = {folder.name}, folder
    while (begin := read_lineage(place)) is not None:
        changes = ", ".join(
            f"{key} {render_scalar(was)} -> {render_scalar(now)}" for key, (was, now) in begin["changes"].items()
        )
        rows.append(("forked from", f"{begin['parent']} at {begin['step']:,}", changes))
        place = folder.parent / begin["parent"]
        if place.name in seen:
            break
        seen.add(place.name)
    rows += [
        ("fork", f"{run.name} at {run.forked_at:,}", run.state)
        for run in list_runs(folder.parent)
        if run.parent == folder.name
    ]
    return rows


def _change(change: Change) -> tuple[str, ...]:
    values = f"{render_scalar(change.old)} -> {render_scalar(change.new)}"
    return f"update {change.update}, step {change.global_step:,}", change.key, values, change.source


def _checkpoints(folder: Path) -> list[tuple[str, ...]]:
    """Return each checkpoint with what is wrong with it, if anything is."""
    place = folder / "checkpoints"
    steps, best = checkpoints(place), read_best(folder)
    rows: list[tuple[str, ...]] = []
    for step in steps:
        problem = problem_of(place / str(step))
        names = [problem or "whole"]
        if best is not None and best["step"] == step:
            names.append("best")
        rows.append((f"{step:,}", ", ".join(names)))
    return rows


def _last_metrics(folder: Path) -> list[tuple[str, ...]]:
    rows = read_rows(folder)
    return [(name, f"{value:.6g}") for name, value in rows[-1].items()] if rows else []
