"""Actor and critic: bodies that make features, a head for the action distribution, a head for the value.

One signature for all models. `memory` is the recurrent state and `starts` says which rows begin an episode;
feed-forward models hand memory through untouched.
"""

from __future__ import annotations

from gymnasium import Space
from torch import Tensor, nn

from ppo_lab.config import ModelConfig
from ppo_lab.distributions import Distribution, make_head
from ppo_lab.networks import make_body, make_input, orthogonal, width

Memory = Tensor | None


class ActorCritic(nn.Module):
    """The policy pi(a | s) and the value V(s) of one agent, with the statistics that normalise its observations."""

    def __init__(self, config: ModelConfig, observation_space: Space, action_space: Space) -> None:
        super().__init__()
        self.features = make_input(observation_space, config)
        seen = self.features.space
        self.actor_body = make_body(seen, config, config.privileged)
        self.critic_body = self.actor_body if config.shared else make_body(seen, config)
        self.actor_head = make_head(action_space, width(self.actor_body), config.log_std_init)
        self.critic_head = orthogonal(width(self.critic_body), 1, gain=1.0)

    def initial_memory(self, num_envs: int) -> Memory:
        """The memory at the start of an episode (N, *memory); None for a model without one."""
        return None

    def step(self, obs: Tensor, memory: Memory, starts: Tensor) -> tuple[Distribution, Memory]:
        """What to do now: obs (N, *obs), starts (N,) bool -> distribution over (N,), the memory after the step."""
        return self.actor_head(self.actor_body(self.features(obs))), memory

    def value(self, obs: Tensor, memory: Memory = None, starts: Tensor | None = None) -> Tensor:
        """V(s): (*batch, *obs) -> (*batch)."""
        return self.critic_head(self.critic_body(self.features(obs))).squeeze(-1)  # (*batch, 1) -> (*batch)

    def evaluate(self, obs: Tensor, action: Tensor, memory: Memory, starts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log_prob of `action`, entropy and value, each (L, B), for chunks of L steps: obs (L, B, *obs)."""
        features = self.features(obs)  # (L, B, features)
        actor = self.actor_body(features)
        critic = actor if self.critic_body is self.actor_body else self.critic_body(features)
        distribution = self.actor_head(actor)
        return distribution.log_prob(action), distribution.entropy(), self.critic_head(critic).squeeze(-1)

    def to_env(self, action: Tensor) -> Tensor:
        """The policy's action as the environment takes it: mapped into the Box, counted from Discrete.start."""
        return self.actor_head.to_env(action)

    def refresh_statistics(self, obs: Tensor) -> None:
        """Take the observations (M, *obs) of a finished update into the normaliser, for the next rollout."""
        self.features.refresh(obs)

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters of the actor (with a shared body) and of the critic, each once, in a fixed order."""
        actor = [*self.actor_body.parameters(), *self.actor_head.parameters()]
        known = {id(parameter) for parameter in actor}
        critic = [*self.critic_body.parameters(), *self.critic_head.parameters()]
        return actor, [parameter for parameter in critic if id(parameter) not in known]
