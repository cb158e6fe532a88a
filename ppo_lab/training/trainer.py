"""The trainer: one PPO update at a time, from settings to a run on disk."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ppo_lab.config import Config
from ppo_lab.config.loading import check_config
from ppo_lab.engine.choose import choose_engine, loss_name
from ppo_lab.engine.memory_plan import plan_memory
from ppo_lab.engine.process import prepare_process
from ppo_lab.engine.threads import measured
from ppo_lab.envs.contract import EnvFactory
from ppo_lab.errors import RunError
from ppo_lab.evaluation.policy import Policy
from ppo_lab.interrupts import GUARD
from ppo_lab.ppo.events import Event, RolloutCollected, Update
from ppo_lab.ppo.learner import LossFunction
from ppo_lab.ppo.rollout import Rollout
from ppo_lab.ppo.state import fingerprint, initial_state
from ppo_lab.ppo.update import update
from ppo_lab.runs.files import disk
from ppo_lab.runs.journal import Change
from ppo_lab.runs.run import Run
from ppo_lab.training.environments import Given, prepare_environments, why_inexact
from ppo_lab.training.fork import Fork
from ppo_lab.training.live_changes import PendingChanges, apply_changes, check_changes
from ppo_lab.training.recorder import Recorder
from ppo_lab.training.resume import Resume, Start
from ppo_lab.training.rollback import BROKEN_OFF, SLOW, Rollback


class Trainer:
    """PPO on a set of environments, one update at a time.

        for update in Trainer(config):
            print(update.global_step, update.metrics.get("episode/return_mean"))

    Stop by leaving the loop and continue with a new one: all that training changes is in `state`. A rollout is never
    cut short: a run has ceil(total_timesteps / (num_envs * num_steps)) updates.
    """

    def __init__(
        self, config: Config, envs: Given = None, *, loss: LossFunction | None = None, start: Start | None = None
    ) -> None:
        """Build environments, model, engine and run folder. Raises ConfigError, EnvError or RunError.

        envs: in place of config.env: a function of nothing or of the number of an environment, or see
            `envs.adapters.given`.
        loss: in place of `ppo_lab.minibatch_loss`, a function (model, batch, ppo) -> `ppo_lab.Loss`; the reference
            engine computes it.
        start: a checkpoint to begin from; `Trainer.resume` and `Trainer.fork` make one.
        """
        self.closed = False
        try:
            prepare_process(check_config(config).run)
            config, self._environments = prepare_environments(config, envs)
        except BaseException:
            if start is not None:
                start.abandon()
            raise
        self.envs = self._environments.envs
        try:
            self.state = state = initial_state(config, self.envs)
            self.engine = choose_engine(config, self.envs, state.model, loss)
            self.memory_plan = plan_memory(config, self.engine, state.model, state.obs)  # before anything is allocated
            self.config, self.thread_choice = measured(config, self.engine, state.model, state.obs)
            ppo = config.ppo
            self.rollout = Rollout.empty(ppo.num_steps, self.envs.num_envs, state.obs, state.model, ppo.chunk_length)
            inexact = why_inexact(config, self._environments)
            self.run = start.run if start is not None else None
            if start is None and config.run.root is not None:
                self.run = Run.create(self.config)
            name = None if loss is None else loss_name(loss)
            self.recorder = Recorder(self.config, self.run, state, self._environments, self.engine, inexact, name)
            self._pending = PendingChanges()  # live changes for the next update
            if start is not None:
                start.restore(state, self.recorder)
                self._pending.schedule(start.to_come)
        except BaseException:
            self.envs.close()  # leave no worker behind
            if start is not None:
                start.abandon()
            raise
        self._busy = threading.RLock()  # held while anything of the state moves
        self._pause_asked = False  # for the end of the update under way, or of the step under way of a slow one
        self._rollback: Rollback | None = None  # of the update under way; None between two
        self._collecting = False  # a rollout is under way: nothing was learned from it yet
        self._failed = False  # an update was broken off: the environments are somewhere in it
        self._slow = True  # the last update took long; the first one may
        self._under_way: Iterator[Event | None] | None = None
        self._events: deque[Event] = deque()  # happened, not yet yielded
        self._seconds: defaultdict[type, list[float]] = defaultdict(list)  # of each event of this update, by kind

    def __iter__(self) -> Iterator[Update]:
        """Train, yielding after every update, until total_timesteps are reached."""
        return (event for event in self.events() if isinstance(event, Update))

    def events(self) -> Iterator[Event]:
        """Train, yielding every part of an update as it happens.

        If the loop is left in the middle of an update, the next loop over the trainer continues that update. An
        interrupt (Ctrl-C, the notebook's stop button) is raised between two events, or in the middle of a slow update,
        and loses nothing: a run on disk is saved first. `pause` ends the loop at the same places, without an error.
        """
        self._pause_asked = False
        with GUARD.loop() as guard:
            while True:
                if not self._events:
                    if self._under_way is None:
                        with guard, self._busy:  # journaled and in force, or neither
                            self.recorder.changes += apply_changes(self.state, self._pending, self.config.ppo, self.run)
                        if self.finished:
                            return
                        if self.closed:
                            raise RunError("this trainer is closed; Trainer.resume continues its run")
                        with guard, self._busy:
                            self._begin()
                    with guard, self._busy:
                        self._advance()
                        left = not self._events or self._may_be_left()
                        if left and self.run is not None:
                            self._save_where_it_is({})
                    if left:
                        return
                yield self._events.popleft()  # those that an interrupt kept back come with the next loop
                if self._pause_asked and self._under_way is None and not self._events:
                    self.save() if self.run is not None else None
                    return

    @property
    def finished(self) -> bool:
        """Whether total_timesteps are reached."""
        return self.state.global_step >= self.state.total_timesteps

    @property
    def engine_line(self) -> str:
        """One line that says how acting and learning are computed, and why not faster."""
        return self.recorder.engine_line

    @property
    def inexact(self) -> str | None:
        """Why a resumed run would not be the same bit for bit; None: it would."""
        return self.recorder.inexact

    @property
    def changes(self) -> list[Change]:
        """The live changes so far: the journal."""
        return self.recorder.changes

    @property
    def envs_given(self) -> bool:
        """Whether environments, or what makes them, were passed."""
        return self._environments.given is not None

    @property
    def env_factory(self) -> EnvFactory | None:
        """The function that makes environments, where one was passed."""
        return self._environments.factory

    @property
    def resume_step(self) -> int:
        """The step at which a run saved now would resume: the start of an update that was left in the middle."""
        return self.state.global_step if self._rollback is None else self._rollback.global_step

    @property
    def can_be_left(self) -> bool:
        """Whether the update under way can be left in the middle: it is slow, and nothing would be lost."""
        return self._rollback is not None and self._rollback.can_be_left(self._collecting)

    def pause(self) -> None:
        """End the current loop after this update; in a slow update, after the current step. Safe from any thread.

        The next loop continues from there. An evaluation in progress is dropped.
        """
        self._pause_asked = True

    def set(self, *, source: str = "code", **changes: float | int | None) -> None:
        """Change settings while training runs, e.g. set(learning_rate=1e-4); applied before the next update.

        Safe from any thread; written into the journal with `source`. total_timesteps can be set too, to extend a run.
        All changes or none: raises ConfigError for a key that cannot change or a value outside its range.
        """
        self._pending.post(check_changes(changes, self.config.ppo), source)

    def record(self, numbers: Mapping[str, float]) -> None:
        """Add {"probe/distance": 0.3} to the line of the next update that ends (docs/runs.md), from any thread.

        If no update follows, they are added to the last line. Raises ConfigError for an invalid name or number.
        """
        if self.closed:
            raise RunError("this trainer is closed, and so is its record")
        self.recorder.add(numbers)
        if self.finished and self._under_way is None:
            with self._busy:  # another thread may be at the end of the last update: then it takes them
                self.recorder.amend_last_line()

    def save(self, metrics: Mapping[str, float] | None = None) -> Path | None:
        """Save a checkpoint now, from any thread. In the middle of an update return None, and save at its end.

        In the middle of a slow update, save the state at its start as soon as the current step is done.
        metrics: of the update that has just ended; they tell whether it is the best so far.
        Raises RunError if there is no run folder or it cannot be written.
        """
        with self._busy:
            if self.run is not None and self._under_way is not None and self._rollback and not self.can_be_left:
                self.recorder.save_asked = True
                return None
            return self._save_where_it_is(metrics or {})

    @classmethod
    def resume(
        cls,
        run: str | Path,
        total_timesteps: int | None = None,
        envs: Given = None,
        *,
        loss: LossFunction | None = None,
        **others: Any,
    ) -> Trainer:
        """Continue a run from its newest whole checkpoint, bit for bit.

        Only total_timesteps can change; to change anything else, use `fork`. Live changes made after the checkpoint
        are applied again at the same updates. Raises RunError if there is nothing to resume or the run is in use.
        """
        if others:
            raise RunError(f"a resumed run keeps its settings; for another {', '.join(others)} use Trainer.fork")
        with disk(f"resume {run}"):
            start = Resume.open(run, total_timesteps, envs)
            trainer = cls(start.config, start.envs, loss=loss, start=start)
            if total_timesteps is not None:
                try:
                    trainer.set(source="resume", total_timesteps=total_timesteps)
                except BaseException:
                    trainer.close()
                    raise
            return trainer

    @classmethod
    def fork(
        cls,
        run: str | Path,
        at: int | str = "latest",
        overrides: Mapping[str, Any] | None = None,
        envs: Given = None,
        *,
        loss: LossFunction | None = None,
    ) -> Trainer:
        """Start a new run from a checkpoint of another; at: a step, "latest" or "best". Step numbers continue.

        With another env section new episodes begin. Raises RunError if the checkpoint does not exist or does not fit.
        """
        with disk(f"fork {run}"):
            start = Fork.open(run, at, overrides or {}, envs)
            trainer = cls(start.config, envs, loss=loss, start=start)
            try:
                trainer.save()  # its own first checkpoint: it no longer depends on its parent
            except BaseException:
                trainer.close()
                start.abandon()
                raise
            return trainer

    def rewind(self, step: int | str, envs: Given = None) -> Trainer:
        """Go back to a checkpoint of this run by forking from it; the folder of this run is not changed."""
        if self.run is None:
            raise RunError("there is nothing to go back to: run.root is null")
        return type(self).fork(self.run.folder, at=step, envs=self.env_factory if envs is None else envs)

    def policy(self) -> Policy:
        """Return a copy of the current policy, which further training does not change."""
        with self._busy:
            return Policy(self.state.model)

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that training changes, including environments that have a state_dict."""
        return fingerprint({"state": self.state.state_dict(), "envs": self.envs.state_dict() or {}})

    def close(self) -> None:
        """Close environments and files. The state stays readable."""
        self.closed = True
        self.envs.close()
        if self.run is not None:
            self.run.close()

    def _begin(self) -> None:
        """Begin an update, after restoring the environments if the last one failed in them."""
        if self._failed and self._rollback is not None:
            reason = self._rollback.put_back(self.state, self.envs, self.config.run.seed)
            self.recorder.inexact, self._failed = reason or self.recorder.inexact, False
        self._rollback = Rollback(self.state, self.envs, self._slow)
        self._under_way = update(self.engine, self.envs, self.state, self.rollout, self.config.ppo, self._may_be_left)
        self._collecting = True
        self._seconds.clear()

    def _may_be_left(self) -> bool:
        """Return whether a stop is requested and this update can be left in the middle."""
        return self._stop_asked() and self.can_be_left

    def _stop_asked(self) -> bool:
        return self._pause_asked or GUARD.asked

    def _advance(self) -> None:
        """Take the next event; if an interrupt is pending, take all up to where the run can be saved, and save it."""
        while (event := self._next_event()) is not None and GUARD.pressed and self.run is not None:
            if self._under_way is None or self._may_be_left():
                break
        if GUARD.pressed and self.run is not None:
            self._save_where_it_is(event.metrics if isinstance(event, Update) else {})

    def _next_event(self) -> Event | None:
        """Take and time the next event of the current update; record the last one. None: the update was left."""
        assert self._under_way is not None
        began = time.perf_counter()
        try:
            event = next(self._under_way)
        except BaseException as error:
            self._broken_off(error)
            raise
        self._seconds[type(event or self.rollout)].append(time.perf_counter() - began)
        if event is None:
            return None
        if isinstance(event, RolloutCollected):
            self._collecting = False
        elif isinstance(event, Update):
            self._under_way, self._rollback = None, None
            self._slow = sum(map(sum, self._seconds.values())) > SLOW
            self.recorder.finish(event, int(self.rollout.valid.sum()), self._seconds, self._stop_asked)
        self._events.append(event)
        return event

    def _broken_off(self, error: BaseException) -> None:
        """Handle an update that raised: save its start if that is known; the next loop begins with a new rollout."""
        self._under_way = None
        self._failed = self._rollback is not None and (self._collecting or self._rollback.whole)
        if isinstance(error, Exception) and self._failed and self._rollback is not None:
            self.recorder.save_after(error, self._rollback)
        if not self._failed:  # what was learned stays, and nothing leads back
            self._rollback, self.recorder.inexact = None, self.recorder.inexact or BROKEN_OFF

    def _save_where_it_is(self, metrics: Mapping[str, float]) -> Path | None:
        """Save the state, or the start of an update that is left in the middle; None for a quick update's middle."""
        if self._rollback is None or self.run is None:
            return self.recorder.save(metrics)
        if not (self._collecting or self._rollback.whole):
            return None
        return self.recorder.save_rollback(self._rollback)
