"""Resume a run: start a trainer from a checkpoint of the same run. `training.fork` starts a new run from one."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppo_lab.config import Config
from ppo_lab.config.loading import differences
from ppo_lab.engine.numpy_rollout import NumpyPolicy, numpy_policy
from ppo_lab.envs.adapters.given import resolve_given
from ppo_lab.errors import EnvError, RunError
from ppo_lab.ppo.state import TrainState, pick_device
from ppo_lab.runs.checkpoint import load_checkpoint
from ppo_lab.runs.journal import Change, read_journal
from ppo_lab.runs.run import Run, find_checkpoint
from ppo_lab.training.continuity import changes_to_come, check_folder, check_task
from ppo_lab.training.environments import Given
from ppo_lab.training.recorder import Recorder

LOG = logging.getLogger("ppo_lab")


@dataclass
class Start:
    """A checkpoint to start a trainer from, with its settings and live changes."""

    config: Config
    saved: Mapping[str, Any] | None  # the checkpoint's tree; None: start at step 0
    run: Run | None  # the open run to write to; None: nothing is written
    envs: Given = None
    changes: list[Change] = field(default_factory=list)  # live changes up to the checkpoint
    to_come: list[Change] = field(default_factory=list)  # live changes after it, to be applied again

    def restore(self, state: TrainState, recorder: Recorder) -> None:
        """Restore a fresh trainer's state. Raise RunError if environments or weights do not fit."""
        if self.saved is not None:
            restore(self.saved, state, recorder)
        recorder.changes = self.changes

    def abandon(self) -> None:
        """Close the run's folder, because no trainer could be made."""
        if self.run is not None:
            self.run.close()


@dataclass
class Resume(Start):
    """The newest whole checkpoint of a run, to continue it."""

    saved: Mapping[str, Any]
    run: Run

    @classmethod
    def open(cls, place: Any, total_timesteps: int | None, envs: Given) -> Resume:
        """Open a run. Raise RunError if there is nothing to resume, it is in use, or its settings were edited."""
        check_place(place)
        run = Run.open(place)
        try:
            path, passed_over = find_checkpoint(run.folder)
            saved = load_checkpoint(path)
            check_folder(run.folder, run.config, saved)
            to_come = changes_to_come(run.folder, saved["update"])
            config, envs = resolve_given(run.config, envs, pick_device(run.config.run.device))
            if config.env != run.config.env:
                pairs = differences(run.config, config).items()
                changed = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in pairs)
                raise RunError(f"a resumed run keeps its settings; for other environments ({changed}) use Trainer.fork")
            if total_timesteps is not None and total_timesteps < saved["global_step"]:
                at = saved["global_step"]
                raise RunError(f"run {place} is at step {at} already; total_timesteps={total_timesteps}")
            changes = [change for change in read_journal(run.folder) if change.update <= saved["update"]]
        except BaseException:
            run.close()
            raise
        warn_passed_over(passed_over)
        return cls(run.config, saved, run, envs, changes, to_come)

    def restore(self, state: TrainState, recorder: Recorder) -> None:
        """Restore the state, and drop what was recorded after the checkpoint: these updates are trained again.

        Raises RunError if the loss is another one, or if environments or weights do not fit.
        """
        was = self.saved["about"].get("loss_given")
        if was != recorder.loss:
            how = f"pass it again: loss={was}" if was else "for another loss use Trainer.fork"
            raise RunError(
                f"the run was trained with {f'the custom loss {was}' if was else 'the built-in loss'}; {how}"
            )
        super().restore(state, recorder)
        if because := why_other_bits(self.saved["about"], state, recorder):
            LOG.warning("%s: exact_resume is false: %s", self.run.name, because)
            recorder.inexact = recorder.inexact or because
        self.run.go_back_to(self.saved["update"], self.saved["global_step"])


def restore(
    saved: Mapping[str, Any], state: TrainState, recorder: Recorder, environments: bool = True, task: bool = True
) -> None:
    """Restore a fresh trainer's state from a checkpoint's tree.

    environments: False: new episodes begin. task: False: the task is another one, so its finished episodes are not
    restored. Raises RunError if the environments or the weights are not those of the checkpoint.
    """
    about, envs = saved["about"], recorder.environments.envs
    if about["envs_given"] and recorder.environments.given is None:
        raise RunError("the run was trained in environments passed to Trainer(config, envs): pass them again")
    check_task(about, envs, bounds=environments)
    state.load_learner(saved)
    if task:
        state.episodes.load_finished(saved["episodes"])
        numbers = saved.get("numbers", {})  # checkpoints of earlier versions have none
        recorder.added.add(numbers.get("added", {}))
        if "episodes" in numbers and envs.metrics_state() is not None:
            envs.load_metrics_state(numbers["episodes"])
    if environments:
        recorder.inexact = recorder.inexact or about.get("inexact_because")  # a run that is inexact once stays inexact
        try:
            if not saved["envs"]:
                raise EnvError(about.get("inexact_because") or "these environments cannot save their state")
            envs.load_state_dict(saved["envs"])
            state.load_experience(saved)
        except EnvError as error:
            recorder.inexact = str(error)
            state.begin_episodes(envs, recorder.config.run.seed)
            LOG.warning(
                "%s: exact_resume is false: %s; the current episodes start again", recorder.config.run.name, error
            )
    state.load_random_numbers(saved)


def why_other_bits(about: Mapping[str, Any], state: TrainState, recorder: Recorder) -> str | None:
    """Return why this engine rounds differently from the one that wrote a checkpoint; None if it does not."""
    if "engine" in about:
        same = ways(about["engine"]) == ways(recorder.engine_line)
        return None if same else f"the engine was a different one (then: {about['engine']})"
    if recorder.config.run.engine == "reference" and isinstance(numpy_policy(state.model, state.obs), NumpyPolicy):
        return "an older version wrote it with run.gradient: autograd, which acted in NumPy, not in torch"
    return None


def ways(line: str) -> list[str]:
    """Return the ways of acting and learning in an engine line, without the reasons in brackets."""
    return [part.partition(" (")[0] for part in line.split("; ")[:2]]


def check_place(place: Any) -> None:
    """Raise RunError if `place` is not a path."""
    if not isinstance(place, str | os.PathLike):
        what = "None" if place is None else f"a {type(place).__name__}"
        raise RunError(f"run: expected the path of a run's folder, such as 'runs/name', got {what}")


def warn_passed_over(reasons: list[str]) -> None:
    """Log a warning for each checkpoint that was passed over."""
    for reason in reasons:
        LOG.warning("passed over: %s", reason)


def newest(folder: Path, at: int | str = "latest") -> Mapping[str, Any]:
    """Return the tree of a checkpoint, and warn about checkpoints that were passed over."""
    path, passed_over = find_checkpoint(folder, at)
    warn_passed_over(passed_over)
    return load_checkpoint(path)
