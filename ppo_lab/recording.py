"""After an update: time, evaluate, record and save what was done. None of it touches the training state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_lab.compiling import CompiledLoss
from ppo_lab.continuing import checkpoint_tree
from ppo_lab.errors import LabError, RunError
from ppo_lab.evaluation import evaluate
from ppo_lab.events import MinibatchStepped, RolloutCollected, Update
from ppo_lab.rollout import Rollout

if TYPE_CHECKING:
    from ppo_lab.trainer import Trainer


def finish_update(trainer: Trainer, update: Update, seconds: Mapping[type, list[float]]) -> None:
    """Add times (and now and then an evaluation) to the metrics of an update, write them down, save when it is time."""
    settings, metrics, steps = trainer.config.run, update.metrics, int(trainer.rollout.valid.sum())
    rollout, everything = sum(seconds[RolloutCollected] + seconds[Rollout]), sum(map(sum, seconds.values()))
    metrics["time/rollout_seconds"] = rollout
    metrics["time/learn_seconds"] = everything - rollout
    metrics["time/steps_per_second"] = steps / everything
    if isinstance(trainer.minibatch_loss, CompiledLoss):
        trainer.minibatch_loss.tell_warm_up(seconds[MinibatchStepped])
    if passed(update.global_step, steps, settings.eval_every):
        metrics |= evaluated(trainer)
    if trainer.run is None:
        return
    trainer.run.record(update.update, update.global_step, metrics)
    if trainer.save_asked or trainer.finished or passed(update.global_step, steps, settings.checkpoint_every):
        write_checkpoint(trainer, metrics)


def evaluated(trainer: Trainer) -> dict[str, float]:
    """What `run.eval_every` asks for; nothing if somebody wants training to stop meanwhile."""
    episodes, factory = trainer.config.run.eval_episodes, trainer.env_factory
    result = evaluate(trainer.policy(), trainer.config, episodes, env_factory=factory)
    return {"eval/return_mean": float(result.returns.mean())}


def write_checkpoint(trainer: Trainer, metrics: Mapping[str, float]) -> Path:
    """Save the state as it is; `metrics` say whether it is the best so far."""
    if trainer.run is None:
        raise RunError("there is no run folder to save to: run.root is null")
    trainer.save_asked = False
    score = metrics.get("episode/return_mean" if trainer.config.run.best_by == "return" else "eval/return_mean")
    return trainer.run.save(trainer.state.global_step, checkpoint_tree(trainer), score)


def save_where_it_is(trainer: Trainer, metrics: Mapping[str, float]) -> Path | None:
    """A checkpoint for who stops now: of the state, or of the beginning of an update that is left in the middle.

    None for a quick update in the middle, which can be done first.
    """
    beginning = trainer.beginning
    if beginning is None:
        return write_checkpoint(trainer, metrics)
    if trainer.run is None or not beginning.whole:
        return None
    return trainer.run.save(beginning.global_step, checkpoint_tree(trainer, beginning), None)


def save_after(trainer: Trainer, error: Exception) -> None:
    """An update was broken off: save its beginning, and let the error say so and name `resume`."""
    beginning = trainer.beginning
    if trainer.run is None or beginning is None or not (trainer.collecting or beginning.whole):
        return
    try:
        trainer.run.save(beginning.global_step, checkpoint_tree(trainer, beginning), None)
    except RunError as problem:
        error.add_note(str(problem))
        return
    text = f"saved at step {beginning.global_step}: Trainer.resume({str(trainer.run.folder)!r}) goes on from there"
    if isinstance(error, LabError):
        error.args = (f"{error}; {text}",)  # a notebook and the command line show this line and nothing else
    else:
        error.add_note(text)


def passed(global_step: int, steps: int, every: int) -> bool:
    """The last `steps` env steps reached a multiple of `every`; 0 is never."""
    return every > 0 and global_step // every > (global_step - steps) // every
