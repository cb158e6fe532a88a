"""Finish an update: time, evaluate, record, save. None of it changes the training state."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from ppo_lab.config import Config
from ppo_lab.engine.choose import ChosenEngine
from ppo_lab.envs.space_text import describe_space
from ppo_lab.errors import LabError, RunError
from ppo_lab.evaluation import EvaluationStopped, evaluate
from ppo_lab.evaluation.policy import Policy
from ppo_lab.ppo.events import MinibatchStepped, RolloutCollected, Update
from ppo_lab.ppo.rollout import Rollout
from ppo_lab.ppo.state import TrainState, fingerprint
from ppo_lab.runs.journal import Change, digest
from ppo_lab.runs.run import Run
from ppo_lab.runs.settings import recorded
from ppo_lab.training.added_metrics import AddedMetrics, checked, env_metrics
from ppo_lab.training.environments import Environments
from ppo_lab.training.rollback import Rollback

LOG = logging.getLogger("ppo_lab")


class Recorder:
    """Finishes each update: completes its metrics, records them, and evaluates and saves when that is due."""

    def __init__(
        self,
        config: Config,
        run: Run | None,
        state: TrainState,
        environments: Environments,
        engine: ChosenEngine,
        inexact: str | None,
        loss: str | None = None,
    ) -> None:
        """Initialize. run: the run folder; None: nothing is written. loss: name of a custom loss, if any."""
        self.config, self.run, self.state, self.environments, self.engine = config, run, state, environments, engine
        self.inexact = inexact  # why a resume is not bit for bit; None: it is
        self.changes = list[Change]()  # live changes so far: the journal
        self.added = AddedMetrics()
        self.save_asked = False  # save at the end of the update under way
        self.engine_line = engine.describe(state.model, state.obs)
        self.loss = loss
        self._about = {"loss_given": loss, **recorded(config)}

    def finish(self, update: Update, steps: int, seconds: Mapping[type, list[float]], stop: Callable[[], bool]) -> None:
        """Complete the metrics of an update, write them down, and save when it is due.

        Args:
            update: The update; its metrics are extended in place.
            steps: Env steps of its rollout.
            seconds: Times of its parts, by type of event.
            stop: Returns whether a stop is requested; an evaluation in progress is then dropped.

        Raises:
            Exception: What an environment's `metrics` or the evaluation raised, after everything was written.
            RunError: The record or the checkpoint cannot be written.
        """
        settings, metrics = self.config.run, update.metrics
        rollout, everything = sum(seconds[RolloutCollected] + seconds[Rollout]), sum(map(sum, seconds.values()))
        metrics["time/rollout_seconds"] = rollout
        metrics["time/learn_seconds"] = everything - rollout
        metrics["time/steps_per_second"] = steps / everything
        self.engine.report_seconds(seconds[MinibatchStepped])
        failed: Exception | None = None
        try:  # third-party code: the update is recorded even if it raises
            for name, number in env_metrics(self.environments.envs).items():
                metrics.setdefault(name, number)
            if passed(update.global_step, steps, settings.eval_every):
                self._evaluate(metrics, stop)
        except Exception as error:
            failed = error
        for name, number in self.added.take().items():  # last: numbers may have been added meanwhile
            metrics.setdefault(name, number)
        self.added.last = metrics
        if self.run is not None:
            self.run.record(update.update, update.global_step, metrics)
            finished = update.global_step >= self.state.total_timesteps
            due = self.save_asked or finished or passed(update.global_step, steps, settings.checkpoint_every)
            if failed is not None or due:
                self.save(metrics)
        if failed is not None:
            if self.run is not None:
                _say_where(failed, self.run, update.global_step)
            raise failed

    def _evaluate(self, metrics: dict[str, float], stop: Callable[[], bool]) -> None:
        """Evaluate the current policy and add the result to `metrics`; add nothing if a stop is requested meanwhile."""
        settings = self.config.run
        episodes = settings.eval_episodes
        try:
            result = evaluate(
                Policy(self.state.model), self.config, episodes, env_factory=self.environments.factory,
                max_steps=settings.eval_max_steps, stop=stop,
                quiet=True,  # the trainer warned about these environments at the start
            )  # fmt: skip
        except EvaluationStopped:
            return
        metrics["eval/return_mean"], metrics["eval/cut_off"] = float(result.returns.mean()), float(result.cut_off.sum())
        if result.cut_off.all() and "cut off" not in self.added.said:
            self.added.said.add("cut off")
            LOG.warning(
                "evaluation: all %d episodes were cut off after %s steps (run.eval_max_steps): eval/return_mean is "
                "the return up to there, not of whole episodes", episodes, f"{result.lengths.max():,}",
            )  # fmt: skip

    def add(self, numbers: Mapping[str, float]) -> None:
        """Add numbers to the line of the next update. Raise ConfigError for an invalid name or number."""
        self.added.add(checked(numbers, [f"episode/{key}" for key, _ in self.config.env.info_keys]))

    def amend_last_line(self) -> None:
        """Write the waiting numbers into the last line, since no update follows. Raise RunError if that fails."""
        numbers = self.added.take()
        try:
            if numbers and self.run is not None:
                self.run.amend(self.state.update, self.state.global_step, numbers)
        except RunError:
            self.added.add(numbers)  # keep them
            raise
        self.added.last |= numbers

    def save(self, metrics: Mapping[str, float]) -> Path:
        """Save the current state; `metrics` tell whether it is the best so far. Raise RunError without a run folder."""
        if self.run is None:
            raise RunError("there is no run folder to save to: run.root is null")
        self.save_asked = False
        score = metrics.get("episode/return_mean" if self.config.run.best_by == "return" else "eval/return_mean")
        tree = self.checkpoint_tree()
        return self.run.save(self.state.global_step, tree, score, renew=bool(tree["numbers"]["added"]))

    def save_rollback(self, rollback: Rollback) -> Path:
        """Save the state at the start of an update that stops in the middle. Raise RunError without a run folder."""
        if self.run is None:
            raise RunError("there is no run folder to save to: run.root is null")
        tree = self.checkpoint_tree(rollback)
        return self.run.save(rollback.global_step, tree, None, renew=bool(tree["numbers"]["added"]))

    def save_after(self, error: Exception, rollback: Rollback) -> None:
        """Save the state at the start of an update that failed, and add to `error` how to resume from it."""
        if self.run is None:
            return
        try:
            self.save_rollback(rollback)
        except RunError as problem:
            error.add_note(str(problem))
            return
        _say_where(error, self.run, rollback.global_step)

    def checkpoint_tree(self, rollback: Rollback | None = None) -> dict[str, Any]:
        """Return the contents of a checkpoint: of the current state, or of the state at `rollback`."""
        envs, model = self.environments.envs, self.state.model
        if rollback is None:
            envs_state, state = envs.state_dict() or {}, self.state.state_dict()
        else:
            envs_state, state = rollback.envs, rollback.tree(self.state)
        because = self.inexact or envs.why_inexact_now() or (rollback.inexact_because if rollback else envs.lost)
        if because is None and not envs_state:
            because = "these environments cannot save their state"
        self._look_at_engine()
        about = {
            "fingerprint": fingerprint({"state": state, "envs": envs_state}),
            "exact_resume": because is None,
            "inexact_because": because,
            "envs_given": self.environments.given is not None,
            "observation_space": describe_space(envs.observation_space),
            "action_space": describe_space(envs.action_space),
            "action_paths": model.action_paths,
            "versions": versions(),
            "journal_sha256": digest(self.changes, state["update"]),
            "forked_at": None if self.run is None else self.run.forked_at,
            "engine": self.engine_line,
            **self._about,
        }
        numbers = {"added": self.added.waiting()}
        gathered = envs.metrics_state() if rollback is None else rollback.env_metrics
        if gathered is not None:
            numbers["episodes"] = gathered
        return {**state, "envs": envs_state, "numbers": numbers, "about": about}

    def _look_at_engine(self) -> None:
        """Warn if the model is now computed in another way than before, e.g. because it has a hook."""
        line = self.engine.describe(self.state.model, self.state.obs)
        if line != self.engine_line:
            LOG.warning("engine: %s (before: %s)", line, self.engine_line)
            self.engine_line = line


def versions() -> dict[str, str]:
    """Return the versions that the numbers of a run may depend on, besides its settings."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }


def passed(global_step: int, steps: int, every: int) -> bool:
    """Return whether the last `steps` env steps reached a multiple of `every`; False if `every` is 0."""
    return every > 0 and global_step // every > (global_step - steps) // every


def _say_where(error: Exception, run: Run, global_step: int) -> None:
    text = f"saved at step {global_step}: Trainer.resume({str(run.folder)!r}) continues from there"
    if isinstance(error, LabError):
        error.args = (f"{error}; {text}",)  # a notebook and the command line show this line and nothing else
    else:
        error.add_note(text)
