"""The actor-critic model: bodies compute features, cores add memory, heads give the action distribution and the value.

All models have the same signature. `memory` is the recurrent state, and `starts` marks the rows that begin an episode.
Feed-forward models return the memory unchanged.
"""

from __future__ import annotations

import torch
from gymnasium import Space
from torch import Tensor, nn

from ppo_lab.config import ModelConfig
from ppo_lab.envs.spaces import MASK_KEY, leaf_spaces, origin
from ppo_lab.errors import ConfigError, EnvError
from ppo_lab.models.distributions import Distribution, make_head
from ppo_lab.models.networks import make_body, make_input, width
from ppo_lab.models.networks.cores import Core, make_core, run_core
from ppo_lab.models.networks.normalization import ObsNormalizer
from ppo_lab.models.networks.value_head import ValueHead
from ppo_lab.trees import Tree, apply

Memory = dict[str, Tensor] | None  # every tensor (N, *memory)
DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ActorCritic(nn.Module):
    """The policy pi(a | s) and the value function V(s), with the statistics that normalise the observations."""

    def __init__(self, config: ModelConfig, observation_space: Space, action_space: Space) -> None:
        super().__init__()
        if config.shared and config.privileged:
            raise ConfigError(
                "model.privileged: a shared body would show these keys to the actor; set model.shared to false"
            )
        self.features = make_input(observation_space, config)
        self.actor_body = make_body(self.features.space, config, config.privileged)
        self.critic_body = self.actor_body if config.shared else make_body(self.features.space, config)
        self.actor_core = make_core(config, width(self.actor_body))
        self.critic_core = self.actor_core if config.shared else make_core(config, width(self.critic_body))
        self.actor_head = make_head(action_space, width(self.actor_core or self.actor_body), config)
        self.critic_head = ValueHead(width(self.critic_core or self.critic_body), config.normalize_value)
        self.action_paths = origin(action_space)  # the place of each leaf of a flat action in the nested space
        self.shared, self.critic_key = config.shared, "actor" if config.shared else "critic"
        self.masked = self._takes_mask(leaf_spaces(observation_space))
        self.normalizes = any(isinstance(module, ObsNormalizer) for module in self.features.modules())
        self.privileged = tuple(name for key in config.privileged for name in (key, f"{key}_mask"))
        self.sde_interval = config.sde_interval
        self.autocast_dtype = DTYPES[config.precision]

    def initial_memory(self, num_envs: int) -> Memory:
        """Return the memory at the start of an episode, (N, *memory) each; None for a model without one.

        Keys: `actor` and `critic` for the cores (only `actor` if they share one), `noise` and `noise_age` for gSDE.
        """
        memory = self.actor_head.initial_noise(num_envs)
        for key, core in (("actor", self.actor_core), (self.critic_key, self.critic_core)):
            if core is not None:
                memory[key] = core.initial(num_envs)
        return memory or None

    @property
    def recurrent(self) -> tuple[str, ...]:
        """The keys of the memory that gradients flow through; () for a model without a core."""
        keys = ("actor",) if self.shared else ("actor", "critic")
        return keys if self.actor_core is not None else ()

    def step(self, obs: Tree, memory: Memory, starts: Tensor) -> tuple[Distribution, Memory]:
        """Compute the policy for one step: obs (N, *obs), starts (N,) bool -> distribution over (N,), memory after it.

        Only the actor's part of the memory advances. The memory passed in is not modified. Raises ConfigError if a
        recurrent model gets no memory.
        """
        features = self._body(self.actor_body, self.features(obs))  # (N, features)
        if memory is None:
            return self.actor_head(features, self._mask(obs)), None
        memory = dict(memory)
        if self.actor_core is not None:
            features, memory["actor"] = self._remember(self.actor_core, features, memory["actor"], starts)
        noise = None
        if "noise" in memory:
            memory["noise"] = memory["noise"].clone()  # sampling an action writes into it
            age = torch.where(starts, 0, (memory["noise_age"] + 1) % self.sde_interval)  # (N,)
            undrawn = (memory["noise"] == 0).flatten(1).all(1)  # (N,) no noise yet: every step took the mode
            memory["noise_age"], noise = age, (memory["noise"], (age == 0) | undrawn)
        return self.actor_head(features, self._mask(obs), noise), memory

    def value(self, obs: Tree, memory: Memory = None, starts: Tensor | None = None) -> Tensor:
        """Return V(s): obs (*batch, *obs) -> (*batch).

        With a core: obs (N, *obs) and the memory before this step, which is not modified. Raises ConfigError if the
        memory is missing then.
        """
        features = self._body(self.critic_body, self.features(obs))
        if self.critic_core is not None:
            features, _ = self._remember(self.critic_core, features, self._memory(memory)[self.critic_key], starts)
        return self.critic_head(features)

    def value_step(self, obs: Tree, memory: Memory, starts: Tensor) -> tuple[Tensor, Memory]:
        """Return V(s) and the memory after this step: obs (N, *obs), starts (N,) bool -> value (N,), memory.

        Only the critic's own memory advances; the memory of a shared core advances in `step`. The memory passed in is
        not modified.
        """
        if self.critic_core is None or self.shared:
            return self.value(obs, memory, starts), memory
        known = self._memory(memory)
        features = self._body(self.critic_body, self.features(obs))  # (N, features)
        features, after = self._remember(self.critic_core, features, known["critic"], starts)
        return self.critic_head(features), {**known, "critic": after}

    def critique(self, obs: Tree, memory: Memory, starts: Tensor, ends: Tensor) -> tuple[Tensor, Memory, Memory]:
        """Return V(s) along L steps: obs (L, N, *obs), starts and ends (L, N) bool -> value (L, N) and two memories.

        The first is the memory after the last step, in which only the critic's part has advanced. The second is the
        critic's memory after each row where `ends` is True, (E, *memory) in the order of `ends.nonzero()`; None
        without a core.
        """
        features = self._body(self.critic_body, self.features(obs))  # (L, N, features)
        if self.critic_core is None:
            return self.critic_head(features), memory, None
        known = self._memory(memory)
        features, after, at_ends = run_core(self.critic_core, features, known[self.critic_key], starts, ends)
        return self.critic_head(features), {**known, self.critic_key: after}, {self.critic_key: at_ends}

    def evaluate(self, obs: Tree, action: Tensor, memory: Memory, starts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log_prob of `action`, entropy and value, each (L, B), for chunks of L steps: obs (L, B, *obs).

        memory: (B, *memory) before the first step of each chunk, starts: (L, B) bool.
        """
        inputs = self.features(obs)
        actor = self._along(self.actor_body, self.actor_core, inputs, memory, "actor", starts)  # (L, B, features)
        if self.shared:
            critic = actor
        else:
            critic = self._along(self.critic_body, self.critic_core, inputs, memory, "critic", starts)
        distribution = self.actor_head(actor, self._mask(obs))
        return distribution.log_prob(action), distribution.entropy(), self.critic_head(critic)

    def distribution(self, obs: Tree, memory: Memory, starts: Tensor) -> Distribution:
        """Return the policy along L steps: obs (L, B, *obs), memory before the first -> distribution over (L, B)."""
        actor = self._along(self.actor_body, self.actor_core, self.features(obs), memory, "actor", starts)
        return self.actor_head(actor, self._mask(obs))

    def to_env(self, action: Tensor) -> Tree:
        """Convert the policy's action to the environment's: mapped into the Box, counted from Discrete.start."""
        return self.actor_head.to_env(action)

    def refresh_statistics(self, obs: Tree, valid: Tensor | None = None) -> None:
        """Update the normaliser with the observations of a finished update, for the next rollout.

        obs: (M, *obs). With valid (T, N) bool it is (T or more, N, *obs), and only rows where valid is True count.
        """
        if self.normalizes:
            seen = obs if valid is None else apply(lambda rows: rows[: len(valid)][valid], obs)
            self.features.refresh(seen)

    def describe(self) -> str:
        """Return a line with the numbers of parameters: in all, of the actor and of the critic."""
        actor, critic = (sum(parameter.numel() for parameter in group) for group in self.parameter_groups())
        shared = ", body shared" if self.shared else ""
        return f"{actor + critic:,} parameters (actor {actor:,}, critic {critic:,}{shared})"

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters of the actor (including a shared body) and of the critic, each once, in fixed order."""
        known: set[int] = set()
        groups: list[list[nn.Parameter]] = []
        for parts in (
            (self.actor_body, self.actor_core, self.actor_head),
            (self.critic_body, self.critic_core, self.critic_head),
        ):
            group = [parameter for part in parts if part is not None for parameter in part.parameters()]
            groups.append([parameter for parameter in group if id(parameter) not in known])
            known |= {id(parameter) for parameter in group}
        return groups[0], groups[1]

    def _body(self, body: nn.Module, inputs: Tree) -> Tensor:
        """Compute the body's features, under autocast if configured; heads and losses then get float32."""
        if self.autocast_dtype is None:
            features: Tensor = body(inputs)
            return features
        with torch.autocast(next(body.parameters()).device.type, self.autocast_dtype):
            return body(inputs).float()

    def _along(
        self, body: nn.Module, core: Core | None, inputs: Tree, memory: Memory, key: str, starts: Tensor
    ) -> Tensor:
        features = self._body(body, inputs)
        return features if core is None else core.features(features, self._memory(memory)[key], starts)

    def _remember(self, core: Core, features: Tensor, memory: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Take one step of a core: features (N, F) -> features (N, H), and the memory after the step."""
        begins = torch.zeros(len(features), dtype=torch.bool, device=features.device) if starts is None else starts
        return core.step(features, memory, begins)

    def _memory(self, memory: Memory) -> dict[str, Tensor]:
        if memory is None:
            raise ConfigError("this model has a memory: pass the one from initial_memory() or from the previous step")
        return memory

    def _takes_mask(self, keys: dict[str, Space]) -> bool:
        size = self.actor_head.mask_size
        if MASK_KEY in keys and keys[MASK_KEY].shape != (size,):
            raise EnvError(
                f"{MASK_KEY!r} of the observation has shape {keys[MASK_KEY].shape}; the action space needs ({size},)"
            )
        return MASK_KEY in keys

    def _mask(self, obs: Tree) -> Tensor | None:
        """Return the action mask of an observation, (*batch, K), True for legal actions; None without one."""
        return obs[MASK_KEY] if self.masked and isinstance(obs, dict) else None
