"""Fork a run: start a new run from a checkpoint of another."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ppo_lab.config import Config
from ppo_lab.config.loading import differences, flat, override
from ppo_lab.errors import RunError
from ppo_lab.ppo.state import TrainState
from ppo_lab.runs.journal import read_journal
from ppo_lab.runs.run import Run, find_run
from ppo_lab.training.continuity import check_task, same_episodes, settings_of_parent
from ppo_lab.training.convert import check_fit, converted
from ppo_lab.training.environments import Given
from ppo_lab.training.recorder import Recorder
from ppo_lab.training.resume import Start, check_place, newest, restore

LOG = logging.getLogger("ppo_lab")


@dataclass
class Fork(Start):
    """A checkpoint of another run to start from, and the folder of the new run, whose lineage names its parent."""

    saved: Mapping[str, Any]
    run: Run
    old: Config = field(default_factory=Config)  # the parent's settings
    overrides: Mapping[str, Any] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, place: Any, at: int | str, overrides: Mapping[str, Any], envs: Given) -> Fork:
        """Create the new run's folder. Raise RunError if the checkpoint is not there or the parent was edited."""
        check_place(place)
        parent = find_run(place)
        saved = newest(parent, at)
        old = settings_of_parent(parent, saved, overrides)
        config = override(old, overrides)
        if config.run.root is None:
            raise RunError("a fork is a run on disk: run.root cannot be null")
        lineage = {
            "parent": parent.name,
            "step": saved["global_step"],
            "update": saved["update"],
            "fingerprint": saved["about"]["fingerprint"],
            "changes": differences(old, config),
        }
        changes = [change for change in read_journal(parent) if change.update <= saved["update"]]
        run = Run.create(config, lineage)
        return cls(config, saved, run, envs, changes, [], old, overrides, lineage)

    def restore(self, state: TrainState, recorder: Recorder) -> None:
        """Restore the checkpoint; what depends on changed settings is converted to their units, or starts from nothing.

        Raises RunError if the checkpoint does not fit the new settings.
        """
        run, old, new = self.run, self.old, recorder.config
        if new != self.config:  # run.threads: auto is a number now
            self.lineage["changes"] = differences(old, new)
            run.settle(new, self.lineage)
        envs, about = recorder.environments.envs, self.saved["about"]
        other_bounds = check_task(about, envs, bounds=False)
        if other_bounds:
            LOG.warning("%s: %s; no network reads them, and new episodes begin", run.name, other_bounds)
        if about.get("loss_given") != recorder.loss:
            was, now = (name or "the built-in one" for name in (about.get("loss_given"), recorder.loss))
            LOG.warning("%s: the loss is %s; the parent's was %s", run.name, now, was)
        same_task = (new.env.id, new.env.kwargs) == (old.env.id, old.env.kwargs) and not other_bounds
        saved = converted(self.saved, old, new, same_task)
        check_fit(saved["model"], state.model, self.lineage["changes"])
        same_envs = not other_bounds and (recorder.environments.given is not None) == about["envs_given"]
        restore(saved, state, recorder, environments=same_envs and same_episodes(old, new), task=same_task)
        if new.run.seed != old.run.seed:
            state.reseed(new.run.seed)
        for key in flat(self.overrides):
            state.adapted.pop(key.removeprefix("ppo."), None)
            state.live.pop(key.removeprefix("ppo."), None)  # an override replaces a live change
        run.inherit(self.changes)
        recorder.changes = self.changes

    def abandon(self) -> None:
        """Remove the new run's folder."""
        self.run.discard()
