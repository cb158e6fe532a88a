"""The trainer: one PPO update at a time."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ppo_lab.config import Config, PPOConfig
from ppo_lab.engine.compiled_loss import loss_function
from ppo_lab.engine.memory_plan import plan_memory
from ppo_lab.engine.process import prepare_process
from ppo_lab.engine.threads import measured
from ppo_lab.envs.contract import EnvFactory, Envs
from ppo_lab.errors import RunError
from ppo_lab.evaluation.policy import Policy
from ppo_lab.interrupts import GUARD
from ppo_lab.ppo.adaptive import adapt, divergence_if_needed
from ppo_lab.ppo.advantages import gae
from ppo_lab.ppo.batches import Batch, minibatches
from ppo_lab.ppo.events import AdvantagesEstimated, Event, MinibatchStepped, RolloutCollected, Update
from ppo_lab.ppo.learner import Route, gradient_route
from ppo_lab.ppo.losses import Loss
from ppo_lab.ppo.metrics import critic_metrics, loss_metrics, settings_metrics
from ppo_lab.ppo.optimizer import gradient_step, learning_rates, set_learning_rates
from ppo_lab.ppo.rewards import rewards_to_learn
from ppo_lab.ppo.rollout import Rollout, collect_stepwise, estimate_values
from ppo_lab.ppo.schedules import in_force, settings_at
from ppo_lab.ppo.state import fingerprint, initial_state
from ppo_lab.runs.journal import Change
from ppo_lab.runs.run import Run
from ppo_lab.training import resume
from ppo_lab.training.added_metrics import AddedMetrics
from ppo_lab.training.beginning import BROKEN_OFF, SLOW, Beginning
from ppo_lab.training.continuity import recorded
from ppo_lab.training.live_changes import Mailbox, check_changes, take_changes
from ppo_lab.training.recorder import add_metrics, finish_update, save_after, save_where_it_is

Given = Envs | EnvFactory | None  # None: what config.env asks for


class Trainer:
    """PPO on a set of environments, one update at a time.

        for update in Trainer(config):
            print(update.global_step, update.metrics.get("episode/return_mean"))

    Stop by leaving the loop and go on with a new one: all that training changes is in `state`. A rollout is never cut
    short: the run ends with the first update at or past total_timesteps, ceil(total / (num_envs * num_steps)) updates.
    """

    def __init__(self, config: Config, envs: Given = None, run: Run | None = None) -> None:
        """Raises ConfigError, EnvError or RunError for settings that cannot work.

        envs: in place of config.env: a function of nothing or of the number of an environment, or see `understood`.
        run: an open folder to go on in, instead of a new one.
        """
        from ppo_lab.engine.graphs import make_graphs  # a wing: not above

        prepare_process(resume.expected_config(config).run)
        config, envs, self.env_factory, self.envs = resume.environments(config, envs)
        try:
            self.state = initial_state(config, self.envs)
            ppo, state = config.ppo, self.state
            self.memory_plan = plan_memory(config, state.model, state.obs)  # of what follows
            self.config, self.thread_choice = measured(config, state.model, state.obs)
            self.minibatch_loss = loss_function(config, self.envs)
            self.rollout = Rollout.empty(ppo.num_steps, self.envs.num_envs, state.obs, state.model, ppo.chunk_length)
            self.graphs = make_graphs(config, self.envs, state, self.rollout)
            self.inexact = resume.why_inexact(config, self.envs, envs)  # why resume is not bit for bit; None: it is
            self.run = run or (Run.create(self.config) if config.run.root is not None else None)
        except BaseException:
            self.envs.close()  # leave no worker behind
            raise
        self.envs_given, self.closed, self.added = envs is not None, False, AddedMetrics()
        self.changes, self._mailbox = list[Change](), Mailbox()  # live changes so far (the journal), and those to come
        self._busy = threading.RLock()  # held while anything of the state moves
        self.save_asked = False  # by a person, for the end of the update under way
        self.pause_asked = False  # by a person, for the step under way
        self.beginning: Beginning | None = None  # of the update under way; None between two
        self.collecting = False  # a rollout is under way, and nothing was learned from it yet
        self._failed = False  # in a rollout: environments are somewhere in it
        self._slow = True  # the update before took long; the first one may
        self._under_way: Iterator[Event | None] | None = None
        self._events: deque[Event] = deque()  # happened, not yet yielded
        self._last: Route | None = None  # how the update before found its gradients
        self._seconds: defaultdict[type, list[float]] = defaultdict(list)  # of each event of this update, by kind

    def __iter__(self) -> Iterator[Update]:
        """Train, yielding after every update, until total_timesteps are reached."""
        return (event for event in self.events() if isinstance(event, Update))

    def events(self) -> Iterator[Event]:
        """The same, finer: every part of an update as it happens.

        Left in the middle of an update, that update goes on where it was with the next loop over the trainer. An
        interrupt (Ctrl-C, the notebook's stop button) arrives between two events, or in the middle of an update that
        takes long, and loses nothing: a run on disk is saved first. So does `pause`, which just ends the loop.
        """
        self.pause_asked = False
        with GUARD.loop() as guard:
            while True:
                if not self._events:
                    if self._under_way is None:
                        with guard, self._busy:  # written down and in force, or neither
                            self.changes += take_changes(self.state, self._mailbox, self.config.ppo, self.run)
                        if self.finished:
                            return
                        if self.closed:
                            raise RunError("this trainer is closed; Trainer.resume goes on with its run")
                        with guard, self._busy:
                            self._begin()
                    with guard, self._busy:
                        self._advance()
                        left = not self._events or self._may_be_left()
                        if left and self.run is not None:
                            save_where_it_is(self, {})
                    if left:
                        return
                yield self._events.popleft()  # those that an interrupt kept back come with the next loop
                if self.pause_asked and self._under_way is None and not self._events:
                    self.save() if self.run is not None else None
                    return

    @cached_property
    def recorded_settings(self) -> dict[str, Any]:
        """What each checkpoint holds of the settings."""
        return recorded(self.config)

    @property
    def finished(self) -> bool:
        """total_timesteps are reached."""
        return self.state.global_step >= self.state.total_timesteps

    def pause(self) -> None:
        """End the loop under way after this update, or after this step of one that takes long. Safe from any thread.

        The next loop goes on from there. An evaluation under way is left out.
        """
        self.pause_asked = True

    def _update(self) -> Iterator[Event | None]:
        """One iteration of PPO (Schulman et al. 2017, algorithm 1). None: it can be left here."""
        state, rollout = self.state, self.rollout
        ppo = self._begin_update()
        yield from collect_stepwise(self.envs, state.model, state, rollout, self.graphs.rollout, self._may_be_left)
        self.collecting = False
        state.global_step += int(rollout.valid.sum())  # it happened, whatever becomes of the update
        state.episodes.update(rollout.reward, rollout.episode_done, rollout.valid)
        yield RolloutCollected(rollout)

        reward = rewards_to_learn(rollout, ppo, state.reward_scaler)
        advantage, returns = self._advantages(reward, ppo)
        yield AdvantagesEstimated(advantage, returns)

        metrics = settings_metrics(ppo, learning_rates(state.optimizer))
        metrics |= critic_metrics(rollout.value, returns, rollout.valid) | state.episodes.metrics()
        state.model.critic_head.refresh(returns[rollout.valid])
        moved = divergence_if_needed(ppo, state.model, rollout)
        steps = list[tuple[Loss, Tensor]]()
        self._last = gradient = gradient_route(state, rollout, ppo, self.config.run, self.minibatch_loss, self._last)
        for epoch, batch in self._batches(ppo, reward, advantage, returns, gradient.inputs):
            taken = self.graphs.step(batch, ppo)  # captured: gradient and step at once
            loss = taken[0] if taken else gradient(batch)
            if ppo.target_kl is not None and not loss.approx_kl <= 1.5 * ppo.target_kl:  # NaN stops too
                break
            norm = taken[1] if taken else gradient_step(state.optimizer, ppo.max_grad_norm, state.scaler, gradient.flat)
            steps.append((loss, norm))
            yield MinibatchStepped(epoch, batch, loss, norm)

        metrics |= loss_metrics(steps, scaled=state.scaler.is_enabled())
        metrics |= adapt(state, self.config.ppo, ppo, metrics, moved)
        state.model.refresh_statistics(rollout.obs, rollout.valid)
        state.update += 1
        yield Update(state.update, state.global_step, metrics)

    def _begin_update(self) -> PPOConfig:
        """The settings of this update: schedules and live changes in force."""
        state, ppo = self.state, self.config.ppo
        settings = in_force(settings_at(ppo, state.live, state.global_step, state.total_timesteps), state.adapted)
        set_learning_rates(state.optimizer, ppo, settings.learning_rate, state.global_step, self.rollout.reward.numel())
        return settings

    def _advantages(self, reward: Tensor, ppo: PPOConfig) -> tuple[Tensor, Tensor]:
        """Advantage and returns (T, N) from the values that the rollout holds."""
        r = self.rollout
        return gae(reward, r.value, r.next_value, r.terminated, r.done, r.valid, ppo.gamma, ppo.gae_lambda)

    def _batches(
        self, ppo: PPOConfig, reward: Tensor, advantage: Tensor, returns: Tensor, inputs: Tensor | None
    ) -> Iterator[tuple[int, Batch]]:
        """update_epochs passes over the rollout, each in a new order."""
        rollout, state = self.rollout, self.state
        for epoch in range(ppo.update_epochs):
            if ppo.recompute_advantage and epoch > 0:
                estimate_values(state.model, rollout, rollout.first_memory())
                advantage, returns = self._advantages(reward, ppo)
            for batch in minibatches(
                rollout, advantage, returns, ppo.num_minibatches, state.shuffle_rng, ppo.normalize_advantage, inputs
            ):
                yield epoch, batch

    def _begin(self) -> None:
        """Begin an update, with the environments where they were if the last one failed in them."""
        if self._failed and self.beginning is not None:
            reason = self.beginning.put_back(self.state, self.envs, self.config.run.seed)
            self.inexact, self._failed = reason or self.inexact, False
        self.beginning = Beginning(self.state, self.envs, self._slow)
        self._under_way, self.collecting = self._update(), True
        self._seconds.clear()

    def _may_be_left(self) -> bool:
        """Somebody wants to stop, and this update can be left in the middle."""
        asked = self.pause_asked or GUARD.asked
        return asked and self.beginning is not None and self.beginning.can_be_left(self.collecting)

    def _advance(self) -> None:
        """The next event; where an interrupt waits, all to where a run on disk can be saved, and save it."""
        while (event := self._next_event()) is not None and GUARD.pressed and self.run is not None:
            if self._under_way is None or self._may_be_left():
                break
        if GUARD.pressed and self.run is not None:
            save_where_it_is(self, event.metrics if isinstance(event, Update) else {})

    def _next_event(self) -> Event | None:
        """The next event of the update under way, timed; its last one is recorded. None: it was left in the middle."""
        assert self._under_way is not None
        began = time.perf_counter()
        try:
            event = next(self._under_way)
        except BaseException as error:
            self._under_way = None  # a generator that raised is over: the next loop starts with a new rollout
            self._failed = self.collecting or (self.beginning is not None and self.beginning.whole)
            if isinstance(error, Exception):
                save_after(self, error)
            if not self._failed:  # what was learned stays, and nothing leads back
                self.beginning, self.inexact = None, self.inexact or BROKEN_OFF
            raise
        self._seconds[type(event or self.rollout)].append(time.perf_counter() - began)
        if event is None:
            return None
        if isinstance(event, Update):
            self._under_way, self.beginning = None, None
            self._slow = sum(map(sum, self._seconds.values())) > SLOW
            finish_update(self, event, self._seconds)
        self._events.append(event)
        return event

    def set(self, *, source: str = "code", **changes: float | int | None) -> None:
        """Change settings while training runs, e.g. set(learning_rate=1e-4); taken at the next update boundary.

        Safe from any thread; written into the journal with `source`. total_timesteps can be set too, to extend a run.
        All changes or none: raises ConfigError for a key that cannot change or a value outside its range.
        """
        self._mailbox.post(check_changes(changes, self.config.ppo), source)

    def record(self, numbers: Mapping[str, float]) -> None:
        """Add {"probe/distance": 0.3} to the line of the next update that ends (docs/runs.md), from any thread."""
        add_metrics(self, numbers, self._busy, under_way=self._under_way is not None)

    def save(self) -> Path | None:
        """A checkpoint now, from any thread; in the middle of an update (then None) with its end.

        Of one that takes long its beginning is saved, as soon as the part under way is done.

        Raises RunError if there is no run folder or the disk does not take it.
        """
        with self._busy:
            left = self.beginning is None or self.beginning.can_be_left(self.collecting)
            if self.run is not None and self._under_way is not None and not left:
                self.save_asked = True
                return None
            return save_where_it_is(self, {})

    @classmethod
    def resume(cls, run: str | Path, total_timesteps: int | None = None, envs: Given = None, **others: Any) -> Trainer:
        """Go on with a run where its newest whole checkpoint is, bit for bit.

        Only total_timesteps can be another one than before: everything else is a fork. Live changes made after the
        checkpoint are made again at the same updates. Raises RunError if there is nothing to resume, or it is in use.
        """
        return resume.resume(cls, run, total_timesteps, envs, others)

    @classmethod
    def fork(
        cls, run: str | Path, at: int | str = "latest", overrides: Mapping[str, Any] | None = None, envs: Given = None
    ) -> Trainer:
        """A new run that begins at a checkpoint of another: `at` a step, "latest" or "best". Step numbers go on.

        With another env section new episodes begin. Raises RunError if the checkpoint is not there or does not fit.
        """
        return resume.fork(cls, run, at, overrides or {}, envs)

    def rewind(self, step: int | str, envs: Given = None) -> Trainer:
        """Go back to a checkpoint of this run, as a fork from it: what came after stays where it is."""
        if self.run is None:
            raise RunError("there is nothing to go back to: run.root is null")
        return type(self).fork(self.run.folder, at=step, envs=self.env_factory if envs is None else envs)

    def schedule(self, changes: list[Change]) -> None:
        """Make changes of a journal again, each at its own update, without writing them down once more."""
        self._mailbox.schedule(changes)

    def policy(self) -> Policy:
        """The policy as it is now, as a copy: training goes on without it."""
        with self._busy:
            return Policy(self.state.model)

    def fingerprint(self) -> str:
        """SHA-256 over all that training changes (environments included where they can tell their state)."""
        return fingerprint({"state": self.state.state_dict(), "envs": getattr(self.envs, "state_dict", dict)()})

    def close(self) -> None:
        """Give back environments and files. The state stays readable."""
        self.closed = True
        self.envs.close()
        if self.run is not None:
            self.run.close()
