"""The ways to take gradient steps: autograd (also of a compiled loss), the gradient by hand, or a CUDA graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor

from ppo_lab.config import PPOConfig
from ppo_lab.engine.compiled_loss import CompiledLoss
from ppo_lab.engine.flat_adam import flat_step
from ppo_lab.engine.graph_minibatch import GraphMinibatch
from ppo_lab.engine.mlp_gradient import MLPGradient, block_rows, stackable_mlp
from ppo_lab.envs.contract import Obs
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.batches import Batch
from ppo_lab.ppo.contract import Learner, LearningState
from ppo_lab.ppo.learner import Autograd, LossFunction, minibatch_loss
from ppo_lab.ppo.losses import Loss
from ppo_lab.ppo.rollout import Rollout


class Way(ABC):
    """A way to take gradient steps: it makes the learner of each update, and reports the memory and time it needs."""

    @abstractmethod
    def describe(self, model: ActorCritic, obs: Obs) -> str:
        """Return the name of the way used for this model, and why no faster one is used.

        obs: observations like those of the environments, (N, *obs).
        """

    @abstractmethod
    def learner(self, state: LearningState, rollout: Rollout, ppo: PPOConfig) -> Learner:
        """Return the learner of one update on `rollout`."""

    def probe(self, model: ActorCritic, batch: Batch, ppo: PPOConfig) -> Callable[[], object]:
        """Return a function that computes the gradient of one minibatch, to measure its time or memory."""
        return lambda: minibatch_loss(model, batch, ppo).total.backward()

    def rows_at_once(self, model: ActorCritic, obs: Obs, rows: int) -> int:
        """Return for how many of the `rows` of a minibatch intermediate results are in memory at one time."""
        return rows

    def normalized_inputs(self, model: ActorCritic, obs: Obs) -> int:
        """Return how many normalised numbers of each observation are kept for the whole update."""
        return 0

    def report_seconds(self, seconds: Sequence[float]) -> None:
        """Receive the seconds that each minibatch of an update took."""
        return


class AutogradWay(Way):
    """Autograd of a loss function: the built-in one (the reference), its compiled form, or a custom one."""

    def __init__(self, loss_of: LossFunction = minibatch_loss, name: str = "autograd", why: str = "") -> None:
        self.loss_of, self.name, self.why = loss_of, name, why

    def describe(self, model: ActorCritic, obs: Obs) -> str:
        """Return the name, with the reason why it was chosen."""
        return f"{self.name} ({self.why})" if self.why else self.name

    def learner(self, state: LearningState, rollout: Rollout, ppo: PPOConfig) -> Learner:
        """Return an `Autograd` learner."""
        return Autograd(state, ppo, self.loss_of)

    def report_seconds(self, seconds: Sequence[float]) -> None:
        """Log once how long compiling took."""
        if isinstance(self.loss_of, CompiledLoss):
            self.loss_of.tell_warm_up(seconds)


class ByHandWay(Way):
    """The gradient by hand if the model allows it, checked before each update; otherwise autograd."""

    def __init__(self) -> None:
        self._last: MLPGradient | None = None  # of the previous update; its memory is reused

    def describe(self, model: ActorCritic, obs: Obs) -> str:
        """Return "gradient by hand", or "autograd" with the reason why this model needs it."""
        plain = stackable_mlp(model, obs)
        return f"autograd ({plain})" if isinstance(plain, str) else "gradient by hand"

    def learner(self, state: LearningState, rollout: Rollout, ppo: PPOConfig) -> Learner:
        """Return a `ByHand` learner, or `Autograd` if the model does not allow it."""
        plain = stackable_mlp(state.model, rollout.obs)
        if isinstance(plain, str):
            return Autograd(state, ppo)
        assert isinstance(rollout.obs, Tensor)
        rows = -(-rollout.reward.numel() // ppo.num_minibatches)
        if self._last is None or not self._last.fits(state.model, plain, rows):
            self._last = MLPGradient(state.model, plain, rows)
        return ByHand(self._last.begin(plain, ppo, rollout.obs[:-1]), state, ppo)

    def probe(self, model: ActorCritic, batch: Batch, ppo: PPOConfig) -> Callable[[], object]:
        """Return a function that computes one gradient by hand, or by autograd if the model does not allow it."""
        plain = stackable_mlp(model, batch.obs)
        if isinstance(plain, str):
            return super().probe(model, batch, ppo)
        gradient = MLPGradient(model, plain, batch.starts.numel()).begin(plain, ppo)
        return lambda: gradient(batch)

    def rows_at_once(self, model: ActorCritic, obs: Obs, rows: int) -> int:
        """Return the rows of one block of `MLPGradient`; with autograd, all rows."""
        plain = stackable_mlp(model, obs)
        return rows if isinstance(plain, str) else block_rows(plain, rows)

    def normalized_inputs(self, model: ActorCritic, obs: Obs) -> int:
        """Return the size of an observation if the model normalises it; otherwise, and with autograd, 0."""
        plain = stackable_mlp(model, obs)
        return 0 if isinstance(plain, str) or plain.normalizer is None else plain.normalizer.center.numel()


class ByHand(Learner):
    """The learner that computes gradients with `MLPGradient` and takes steps with `flat_step`."""

    def __init__(self, found: MLPGradient, state: LearningState, ppo: PPOConfig) -> None:
        self.found, self.inputs = found, found.inputs
        self._optimizer, self._max_grad_norm = state.optimizer, ppo.max_grad_norm

    def gradient(self, batch: Batch) -> Loss:
        """Compute the loss of a minibatch and its gradient; return the loss."""
        return self.found(batch)

    def step(self) -> Tensor:
        """Take the gradient step; return the gradient norm () before clipping."""
        return flat_step(self._optimizer, self.found.flat, self._max_grad_norm)


class GraphWay(Way):
    """A CUDA graph of the gradient and the step of a minibatch, captured at its first use."""

    def __init__(self) -> None:
        self.graph: GraphMinibatch | None = None

    def describe(self, model: ActorCritic, obs: Obs) -> str:
        """Return "CUDA graph of autograd"."""
        return "CUDA graph of autograd"

    def learner(self, state: LearningState, rollout: Rollout, ppo: PPOConfig) -> Learner:
        """Return a `Graph` learner, with a new graph if the model or the optimizer is another object."""
        if self.graph is None or self.graph.model is not state.model or self.graph.optimizer is not state.optimizer:
            self.graph = GraphMinibatch(state.model, state.optimizer)
        return Graph(self.graph, Autograd(state, ppo), ppo)


class Graph(Learner):
    """The learner that replays a `GraphMinibatch`; it uses autograd for minibatches with invalid rows."""

    def __init__(self, graph: GraphMinibatch, plain: Autograd, ppo: PPOConfig) -> None:
        self._graph, self._plain, self._ppo = graph, plain, ppo
        self._norm: Tensor | None = None

    def gradient(self, batch: Batch) -> Loss:
        """Compute the loss of a minibatch and its gradient; return the loss. The graph also takes the step."""
        taken = self._graph(batch, self._ppo)
        if taken is None:
            self._norm = None
            return self._plain.gradient(batch)
        loss, self._norm = taken
        return loss

    def step(self) -> Tensor:
        """Return the gradient norm () before clipping; take the step if the graph has not."""
        return self._plain.step() if self._norm is None else self._norm
