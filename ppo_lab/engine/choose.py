"""Selects how a run acts and learns, from run.engine, run.compile, run.cuda_graphs, the device and the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from ppo_lab.config import LIVE, Config, PPOConfig
from ppo_lab.engine.acting import Acting, GraphActing, NumpyActing, TorchActing
from ppo_lab.engine.compiled_loss import CompiledLoss, check_compiler
from ppo_lab.engine.learning import AutogradWay, ByHandWay, GraphWay, Way
from ppo_lab.engine.mlp_gradient import KNOWN_SETTINGS
from ppo_lab.envs.contract import Envs, Obs
from ppo_lab.errors import ConfigError
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.batches import Batch
from ppo_lab.ppo.contract import Engine, Learner, LearningState
from ppo_lab.ppo.learner import LossFunction, LossSettings
from ppo_lab.ppo.losses import Loss
from ppo_lab.ppo.rollout import Asked, Collecting, Rollout


def choose_engine(config: Config, envs: Envs, model: ActorCritic, loss: LossFunction | None = None) -> ChosenEngine:
    """Choose the engine of a run: the first row that applies.

    | setting                        | acting                                | learning                              |
    |--------------------------------|---------------------------------------|---------------------------------------|
    | run.engine: reference          | torch                                 | autograd                              |
    | loss=my_loss                   | torch                                 | autograd of my_loss                   |
    | run.cuda_graphs: auto or true  | CUDA graph where possible             | CUDA graph where possible             |
    | run.compile: true              | as below                              | autograd of the compiled loss         |
    | a new term of the loss         | as below                              | autograd                              |
    | otherwise                      | NumPy for a small MLP on a CPU        | by hand for an MLP on a CPU           |

    A setting of the loss is new as long as `MLPGradient` has no gradient for it. Raises ConfigError for settings that
    exclude each other, for run.cuda_graphs: true where a step cannot be captured, and without a compiler.
    """
    run = config.run
    if loss is not None or run.engine == "reference":
        why = "run.engine is reference" if loss is None else f"Trainer(config, loss={loss_name(loss)})"
        for key, on in (("compile", run.compile), ("cuda_graphs", run.cuda_graphs is True)):
            if on:
                raise ConfigError(f"run.{key}: not with the reference engine ({why}); set run.{key} to false")
        if loss is None:
            return ChosenEngine(TorchActing(why), AutogradWay(why=why))
        return ChosenEngine(TorchActing(why), AutogradWay(CustomLoss(loss), f"autograd of {loss_name(loss)}"))
    steps, minibatches = why_not_rollout(envs), why_not_minibatch(config, envs, model)
    wanted = run.cuda_graphs is True or (run.cuda_graphs == "auto" and envs.device.type == "cuda")
    for part, reason in (("rollout", steps), ("minibatch", minibatches)):
        if reason is not None and run.cuda_graphs is True:
            raise ConfigError(f"run.cuda_graphs: the {part} step cannot be captured: {reason}; auto captures the rest")
    return ChosenEngine(_acting(wanted, steps, envs), _learning(config, wanted, minibatches, envs))


def _acting(graphs: bool, refused: str | None, envs: Envs) -> Acting:
    if graphs and refused is None:
        return GraphActing()
    if envs.device.type == "cpu":
        return NumpyActing()
    return TorchActing(f"no CUDA graph: {refused if graphs else 'run.cuda_graphs is false'}")


def _learning(config: Config, graphs: bool, refused: str | None, envs: Envs) -> Way:
    if graphs and refused is None:
        return GraphWay()
    if config.run.compile:
        return AutogradWay(compiled_loss(config, envs), "autograd of the compiled loss", "run.compile is true")
    if envs.device.type != "cpu":
        return AutogradWay(why=f"no CUDA graph: {refused if graphs else 'run.cuda_graphs is false'}")
    if config.ppo.accumulate > 1:
        return AutogradWay(why=f"ppo.accumulate is {config.ppo.accumulate}")
    unknown = without_hand_gradient(config.ppo)
    return ByHandWay() if unknown is None else AutogradWay(why=f"ppo.{unknown} has no gradient by hand")


class ChosenEngine(Engine):
    """The engine of a run: one way to act and one way to learn."""

    def __init__(self, acting: Acting, learning: Way) -> None:
        self.acting, self.learning = acting, learning

    def describe(self, model: ActorCritic, obs: Obs) -> str:
        """Return one line that says how this model acts and learns, and why no faster way is used.

        obs: observations like those of the environments, (N, *obs).
        """
        ways = f"acting: {self.acting.describe(model, obs)}; learning: {self.learning.describe(model, obs)}"
        plain = isinstance(self.learning, AutogradWay) and isinstance(self.acting, TorchActing)
        return ways if plain else f"{ways}; the reference in plain torch: run.engine=reference"

    def take_steps(
        self, envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout, asked: Asked
    ) -> Iterator[None]:
        """Fill a rollout, except its values."""
        return self.acting.take_steps(envs, model, state, rollout, asked)

    def learner(self, state: LearningState, rollout: Rollout, ppo: PPOConfig) -> Learner:
        """Return the learner that takes the gradient steps of an update."""
        return self.learning.learner(state, rollout, ppo)

    def probe(self, model: ActorCritic, batch: Batch, ppo: PPOConfig) -> Callable[[], object]:
        """Return a function that computes the gradient of one minibatch (not compiled, not captured)."""
        return self.learning.probe(model, batch, ppo)

    def report_seconds(self, seconds: Sequence[float]) -> None:
        """Receive the seconds that each minibatch of an update took."""
        self.learning.report_seconds(seconds)


class CustomLoss:
    """A loss function of the user, whose result is checked."""

    def __init__(self, loss: LossFunction) -> None:
        self._loss = loss

    def __call__(self, model: ActorCritic, batch: Batch, ppo: PPOConfig) -> Loss:
        """Return the Loss of a batch. Raise ConfigError for another result, or for a total without a gradient."""
        found = self._loss(model, batch, ppo)
        if not isinstance(found, Loss):
            raise ConfigError(f"loss: {loss_name(self._loss)} must return a ppo_lab.Loss, got {type(found).__name__}")
        if found.total.shape != () or not found.total.requires_grad:
            has = "no gradient" if found.total.shape == () else f"the shape {tuple(found.total.shape)}"
            raise ConfigError(f"loss: total of {loss_name(self._loss)} must be one number with a gradient; got {has}")
        return Loss(found.total, *(torch.as_tensor(number, device=found.total.device).detach() for number in found[1:]))


def without_hand_gradient(ppo: PPOConfig) -> str | None:
    """Return the name of a loss setting in use that `MLPGradient` does not support; None if it supports all of them.

    A setting is in use if it differs from its default or can be changed while training runs. A new term of the loss
    is therefore trained by autograd until its gradient is written by hand.
    """
    fields = PPOConfig.model_fields
    for name in LossSettings._fields:
        if name not in KNOWN_SETTINGS and (name in LIVE or getattr(ppo, name) != fields[name].default):
            return name
    return None


def compiled_loss(config: Config, envs: Envs) -> CompiledLoss:
    """Return the compiled loss. Raise ConfigError if the model has a core or there is no compiler."""
    if config.model.core != "none":
        raise ConfigError(
            f"run.compile: not with model.core: {config.model.core}, whose sequences are cut where episodes start: it "
            "would compile into dozens of pieces; set run.compile to false"
        )
    check_compiler()
    parts = config.ppo.num_minibatches * config.ppo.accumulate
    even = config.ppo.num_steps * envs.num_envs % parts == 0 and not envs.next_step_autoreset
    return CompiledLoss(any_size=not even)


def why_not_rollout(envs: Envs) -> str | None:
    """Return why a step of these environments cannot be captured in a CUDA graph; None if it can."""
    if envs.episode_done is not None:
        return f"{type(envs).__name__} ends episodes for learning alone, which a captured step does not record"
    if envs.capturable:
        return None
    return f"{type(envs).__name__} is not known to step on the device alone, in fixed memory"


def why_not_minibatch(config: Config, envs: Envs, model: ActorCritic) -> str | None:
    """Return why a minibatch step of these settings cannot be captured in a CUDA graph; None if it can."""
    if config.run.compile:
        return "run.compile is true"
    ppo = config.ppo
    if ppo.target_kl is not None:
        return "ppo.target_kl needs the KL of every minibatch on the host before its step"
    if ppo.accumulate > 1:
        return "ppo.accumulate cuts a minibatch into parts, which can be empty"
    if config.model.precision == "float16":
        return "model.precision float16 scales gradients by a factor that the host adjusts; bfloat16 needs none"
    if envs.next_step_autoreset:
        return "rows that only reset are not experience, and their number varies"
    if model.recurrent and ppo.num_steps % min(ppo.chunk_length, ppo.num_steps):
        return "ppo.num_steps is not a multiple of ppo.chunk_length, so the number of valid rows varies"
    return None


def loss_name(loss: LossFunction) -> str:
    """Return the name of a custom loss: its `__name__`, or the name of its class."""
    name: str = getattr(loss, "__name__", type(loss).__name__)
    return name
