"""The ways of taking the steps of a rollout: plain torch, NumPy, a CUDA graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from ppo_lab.engine.graph_rollout import GraphRollout
from ppo_lab.engine.numpy_rollout import NumpyPolicy, numpy_policy, take_numpy_steps
from ppo_lab.envs.contract import Envs, Obs
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.ppo.rollout import Asked, Collecting, Rollout, take_steps


class Acting(ABC):
    """A way of taking steps, which can say what it does with a model now."""

    @abstractmethod
    def describe(self, model: ActorCritic, obs: Obs) -> str:
        """Name the way that is taken for this model, with the reason why it is not a faster one."""

    @abstractmethod
    def take_steps(
        self, envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout, asked: Asked
    ) -> Iterator[None]:
        """Fill a rollout, values aside (`rollout.take_steps`)."""

    def in_numpy(self, model: ActorCritic, obs: Obs) -> bool:
        """Return whether NumPy takes the steps: on one thread, with log-probabilities in one batch at the end."""
        return False


class TorchActing(Acting):
    """The reference: `ppo.rollout.take_steps`."""

    def __init__(self, why: str) -> None:
        self.why = why

    def describe(self, model: ActorCritic, obs: Obs) -> str:
        """Name it, with the reason given at the choice."""
        return f"torch ({self.why})"

    def take_steps(
        self, envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout, asked: Asked
    ) -> Iterator[None]:
        """Fill a rollout in plain torch."""
        return take_steps(envs, model, state, rollout, asked)


class NumpyActing(Acting):
    """NumPy where the model allows it, looked at before each rollout; else torch."""

    def describe(self, model: ActorCritic, obs: Obs) -> str:
        """Name what this model allows."""
        policy = numpy_policy(model, obs)
        return f"torch ({policy})" if isinstance(policy, str) else "NumPy"

    def take_steps(
        self, envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout, asked: Asked
    ) -> Iterator[None]:
        """Fill a rollout in NumPy, or in torch."""
        policy = numpy_policy(model, state.obs)
        if isinstance(policy, str):
            return take_steps(envs, model, state, rollout, asked)
        return take_numpy_steps(envs, model, policy, state, rollout, asked)

    def in_numpy(self, model: ActorCritic, obs: Obs) -> bool:
        """Return whether this model allows it."""
        return isinstance(numpy_policy(model, obs), NumpyPolicy)


class GraphActing(Acting):
    """A CUDA graph of one step, captured when it is first used."""

    def __init__(self) -> None:
        self.graph: GraphRollout | None = None

    def describe(self, model: ActorCritic, obs: Obs) -> str:
        """Name it."""
        return "CUDA graph"

    def take_steps(
        self, envs: Envs, model: ActorCritic, state: Collecting, rollout: Rollout, asked: Asked
    ) -> Iterator[None]:
        """Fill a rollout by replaying the graph. Nothing is asked on the way."""
        if self.graph is None or not self.graph.is_of(envs, model, rollout):
            self.graph = GraphRollout(envs, model, state, rollout)
        self.graph(state)
        return iter(())
