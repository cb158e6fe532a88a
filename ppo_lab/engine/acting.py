"""The ways to take the steps of a rollout: plain torch, NumPy, or a CUDA graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from ppo_lab.engine.graph_rollout import GraphRollout
from ppo_lab.engine.numpy_rollout import NumpyPolicy, numpy_policy, take_numpy_steps
from ppo_lab.envs.contract import Envs, Obs
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.rollout import Asked, Collecting, Rollout, take_steps


class Acting(ABC):
    """A way to take the steps of a rollout, which can describe how it handles a given model."""

    @abstractmethod
    def describe(self, model: ActorCritic, obs: Obs) -> str:
        """Return the name of the way used for this model, and why no faster one is used.

        obs: observations like those of the environments, (N, *obs).
        """

    @abstractmethod
    def take_steps(
        self, envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout, asked: Asked
    ) -> Iterator[None]:
        """Fill a rollout, except its values, as `ppo.rollout.take_steps` does. Yields whenever `asked()` is true."""

    def in_numpy(self, model: ActorCritic, obs: Obs) -> bool:
        """Return whether NumPy takes the steps: on one thread, with all log-probabilities in one batch at the end."""
        return False


class TorchActing(Acting):
    """The reference: `ppo.rollout.take_steps`."""

    def __init__(self, why: str) -> None:
        self.why = why

    def describe(self, model: ActorCritic, obs: Obs) -> str:
        """Return "torch" with the reason why it was chosen."""
        return f"torch ({self.why})"

    def take_steps(
        self, envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout, asked: Asked
    ) -> Iterator[None]:
        """Fill a rollout in plain torch."""
        return take_steps(envs, model, state, rollout, asked)


class NumpyActing(Acting):
    """NumPy if the model allows it, checked before each rollout; otherwise torch."""

    def describe(self, model: ActorCritic, obs: Obs) -> str:
        """Return "NumPy", or "torch" with the reason why this model cannot run in NumPy."""
        policy = numpy_policy(model, obs)
        return f"torch ({policy})" if isinstance(policy, str) else "NumPy"

    def take_steps(
        self, envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout, asked: Asked
    ) -> Iterator[None]:
        """Fill a rollout in NumPy, or in torch if the model does not allow NumPy."""
        policy = numpy_policy(model, state.obs)
        if isinstance(policy, str):
            return take_steps(envs, model, state, rollout, asked)
        return take_numpy_steps(envs, model, policy, state, rollout, asked)

    def in_numpy(self, model: ActorCritic, obs: Obs) -> bool:
        """Return whether this model can run in NumPy."""
        return isinstance(numpy_policy(model, obs), NumpyPolicy)


class GraphActing(Acting):
    """A CUDA graph of one step, captured at its first use."""

    def __init__(self) -> None:
        self.graph: GraphRollout | None = None

    def describe(self, model: ActorCritic, obs: Obs) -> str:
        """Return "CUDA graph"."""
        return "CUDA graph"

    def take_steps(
        self, envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout, asked: Asked
    ) -> Iterator[None]:
        """Fill a rollout by replaying the graph, without calling `asked` in between."""
        if self.graph is None or not self.graph.is_of(envs, model, rollout):
            self.graph = GraphRollout(envs, model, state, rollout)
        self.graph(state)
        return iter(())
