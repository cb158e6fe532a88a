"""Train a run again, headlessly, from its settings and its journal, and see whether it is the same run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ppo_lab.config.loading import override
from ppo_lab.errors import RunError
from ppo_lab.ppo.events import Update
from ppo_lab.runs.checkpoint import load_checkpoint
from ppo_lab.runs.metrics import read_rows
from ppo_lab.runs.run import find_checkpoint, find_run, read_config, read_lineage
from ppo_lab.training.added_metrics import LAB_METRICS
from ppo_lab.training.continuity import changes_to_come, check_folder
from ppo_lab.training.resume import Start, why_other_bits
from ppo_lab.training.trainer import Trainer


class Replay(NamedTuple):
    """What came out."""

    equal: bool  # the fingerprints are
    update: int  # the last update that was compared
    fingerprint: str  # of the replay there
    recorded: str  # of the run there
    first_difference: int | None  # the first update whose metrics differ; None: none does


def replay(place: str | Path) -> Replay:
    """Train the run at `place` again up to its newest checkpoint and compare. Nothing is written.

    A fork is replayed from the checkpoint it began with. Every change of the journal is made at its update.
    Raises RunError if the run has no checkpoint to compare with, cannot be repeated exactly, or has settings that were
    edited.
    """
    folder = find_run(place)
    last = load_checkpoint(find_checkpoint(folder)[0])
    if not last["about"]["exact_resume"]:
        raise RunError(f"run {folder} cannot be repeated exactly: {last['about']['inexact_because']}")
    if last["about"]["envs_given"]:
        raise RunError(f"run {folder} was trained in environments passed to Trainer: its settings cannot make them")
    if last["about"].get("loss_given"):
        raise RunError(f"run {folder} was trained with a loss passed to Trainer: its settings cannot make it")
    config = read_config(folder)
    check_folder(folder, config, last, journal=False)
    begin = read_lineage(folder)
    saved = None if begin is None else load_checkpoint(find_checkpoint(folder, begin["step"])[0])
    alone = override(config, {"run.root": None, "run.eval_every": 0, "run.best_by": "return"})
    to_come = changes_to_come(folder, 0 if saved is None else saved["update"])
    trainer = Trainer(alone, start=Start(alone, saved, None, to_come=to_come))
    try:
        if because := why_other_bits(last["about"], trainer.state, trainer.recorder):
            raise RunError(f"run {folder} cannot be repeated exactly: {because}")
        difference = None
        recorded = {row["update"]: row for row in read_rows(folder)}
        for update in trainer if trainer.state.update < last["update"] else ():
            row = {"update": update.update, "global_step": update.global_step, **update.metrics}
            if difference is None and comparable(row) != comparable(_without_added(recorded, update)):
                difference = update.update
            if update.update >= last["update"]:
                break
        fingerprint = trainer.fingerprint()
    finally:
        trainer.close()
    expected = last["about"]["fingerprint"]
    return Replay(fingerprint == expected, trainer.state.update, fingerprint, expected, difference)


def _without_added(recorded: Mapping[float, dict[str, float]], update: Update) -> dict[str, float]:
    """Return a recorded line without the numbers that only a person can have added, which a replay lacks."""
    row = recorded.get(update.update, {})
    ours = {"update", "global_step", *update.metrics, *LAB_METRICS}
    return {name: number for name, number in row.items() if name in ours}


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """Return a line of metrics without what depends on the clock or on who was watching."""
    return {name: value for name, value in row.items() if not name.startswith(("time/", "eval/"))}
