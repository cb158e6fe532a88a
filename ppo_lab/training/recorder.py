"""After an update: time, evaluate, record and save what was done. None of it touches the training state."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_lab.engine.compiled_loss import CompiledLoss
from ppo_lab.errors import LabError, RunError
from ppo_lab.evaluation import EvaluationStopped, evaluate
from ppo_lab.interrupts import GUARD
from ppo_lab.ppo.events import MinibatchStepped, RolloutCollected, Update
from ppo_lab.ppo.rollout import Rollout
from ppo_lab.training.added_metrics import checked, env_metrics
from ppo_lab.training.resume import checkpoint_tree

if TYPE_CHECKING:
    from ppo_lab.runs.run import Run
    from ppo_lab.training.beginning import Beginning
    from ppo_lab.training.trainer import Trainer


LOG = logging.getLogger("ppo_lab")


def finish_update(trainer: Trainer, update: Update, seconds: Mapping[type, list[float]]) -> None:
    """Add times (and now and then an evaluation) to the metrics of an update, write them down, save when it is time."""
    settings, metrics, steps = trainer.config.run, update.metrics, int(trainer.rollout.valid.sum())
    rollout, everything = sum(seconds[RolloutCollected] + seconds[Rollout]), sum(map(sum, seconds.values()))
    metrics["time/rollout_seconds"] = rollout
    metrics["time/learn_seconds"] = everything - rollout
    metrics["time/steps_per_second"] = steps / everything
    if isinstance(trainer.minibatch_loss, CompiledLoss):
        trainer.minibatch_loss.tell_warm_up(seconds[MinibatchStepped])
    failed: Exception | None = None
    try:  # others' code: what was learned is written down all the same
        for name, number in env_metrics(trainer.envs).items():
            metrics.setdefault(name, number)
        if passed(update.global_step, steps, settings.eval_every):
            evaluate_now(trainer, metrics)
    except Exception as error:
        failed = error
    for name, number in trainer.added.take().items():  # last: they may have come meanwhile
        metrics.setdefault(name, number)
    trainer.added.last = metrics
    if trainer.run is not None:
        trainer.run.record(update.update, update.global_step, metrics)
        due = trainer.save_asked or trainer.finished or passed(update.global_step, steps, settings.checkpoint_every)
        if failed is not None or due:
            write_checkpoint(trainer, metrics)
    if failed is not None:
        if trainer.run is not None:
            _tell_where(failed, trainer.run, update.global_step)
        raise failed


def evaluate_now(trainer: Trainer, metrics: dict[str, float]) -> None:
    """Evaluate the policy as it is, and add what came out; nothing if somebody wants training to stop meanwhile."""
    settings = trainer.config.run
    episodes = settings.eval_episodes
    try:
        result = evaluate(
            trainer.policy(), trainer.config, episodes, env_factory=trainer.env_factory,
            max_steps=settings.eval_max_steps, stop=lambda: trainer.pause_asked or GUARD.asked,
            quiet=True,  # the trainer has warned of its environments at the start
        )  # fmt: skip
    except EvaluationStopped:
        return
    metrics["eval/return_mean"], metrics["eval/cut_off"] = float(result.returns.mean()), float(result.cut_off.sum())
    if result.cut_off.all() and "cut off" not in trainer.added.said:
        trainer.added.said.add("cut off")
        LOG.warning(
            "evaluation: all %d episodes were cut off after %s steps (run.eval_max_steps): eval/return_mean is over "
            "what was played, not over whole episodes", episodes, f"{result.lengths.max():,}",
        )  # fmt: skip


def add_metrics(
    trainer: Trainer, numbers: Mapping[str, float], busy: AbstractContextManager[Any], under_way: bool
) -> None:
    """Let numbers wait for the line of the next update that ends; where none is to come they go into the last line."""
    if trainer.closed:
        raise RunError("this trainer is closed, and so is its record")
    trainer.added.add(checked(numbers, [f"episode/{key}" for key, _ in trainer.config.env.info_keys]))
    if trainer.finished and not under_way:
        with busy:  # another thread may be at the end of the last update: then it takes them
            _amend_last_line(trainer, trainer.added.take())


def _amend_last_line(trainer: Trainer, numbers: dict[str, float]) -> None:
    try:
        if numbers and trainer.run is not None:
            trainer.run.amend(trainer.state.update, trainer.state.global_step, numbers)
    except RunError:
        trainer.added.add(numbers)  # still waiting
        raise
    trainer.added.last |= numbers


def write_checkpoint(trainer: Trainer, metrics: Mapping[str, float]) -> Path:
    """Save the state as it is; `metrics` say whether it is the best so far."""
    if trainer.run is None:
        raise RunError("there is no run folder to save to: run.root is null")
    trainer.save_asked = False
    score = metrics.get("episode/return_mean" if trainer.config.run.best_by == "return" else "eval/return_mean")
    tree = checkpoint_tree(trainer)
    return trainer.run.save(trainer.state.global_step, tree, score, renew=bool(tree["numbers"]["added"]))


def save_where_it_is(trainer: Trainer, metrics: Mapping[str, float]) -> Path | None:
    """A checkpoint for who stops now: of the state, or of the beginning of an update that is left in the middle.

    None for a quick update in the middle, which can be done first.
    """
    beginning = trainer.beginning
    if beginning is None or trainer.run is None:
        return write_checkpoint(trainer, metrics)
    if not (trainer.collecting or beginning.whole):
        return None
    return _save_beginning(trainer, trainer.run, beginning)


def _save_beginning(trainer: Trainer, run: Run, beginning: Beginning) -> Path:
    tree = checkpoint_tree(trainer, beginning)
    return run.save(beginning.global_step, tree, None, renew=bool(tree["numbers"]["added"]))


def save_after(trainer: Trainer, error: Exception) -> None:
    """An update was broken off: save its beginning, and let the error say so and name `resume`."""
    beginning = trainer.beginning
    if trainer.run is None or beginning is None or not (trainer.collecting or beginning.whole):
        return
    try:
        _save_beginning(trainer, trainer.run, beginning)
    except RunError as problem:
        error.add_note(str(problem))
        return
    _tell_where(error, trainer.run, beginning.global_step)


def _tell_where(error: Exception, run: Run, global_step: int) -> None:
    text = f"saved at step {global_step}: Trainer.resume({str(run.folder)!r}) goes on from there"
    if isinstance(error, LabError):
        error.args = (f"{error}; {text}",)  # a notebook and the command line show this line and nothing else
    else:
        error.add_note(text)


def passed(global_step: int, steps: int, every: int) -> bool:
    """The last `steps` env steps reached a multiple of `every`; 0 is never."""
    return every > 0 and global_step // every > (global_step - steps) // every
