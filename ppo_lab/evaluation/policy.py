"""A trained policy for use: `act` and `predict`, without trainer, environments or logs."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from ppo_lab.envs.space_text import make_space
from ppo_lab.envs.spaces import MASK_KEY, nest
from ppo_lab.errors import ConfigError, RunError
from ppo_lab.models.actor_critic import ActorCritic, Memory
from ppo_lab.models.distributions import check_mask
from ppo_lab.runs.checkpoint import load_checkpoint
from ppo_lab.runs.run import find_checkpoint, find_run, read_config
from ppo_lab.runs.settings import edited_text, edits
from ppo_lab.trees import Tree, apply, at, flattened, leaves


class Policy:
    """A frozen copy of a trained model: its weights and its observation statistics."""

    def __init__(self, model: ActorCritic, seed: int = 0) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.device = next(self.model.parameters()).device
        self.generator = Generator(self.device).manual_seed(seed)
        self.keys: set[str] = set(getattr(self.model.features, "shapes", ()))  # of a dictionary observation
        self.envs_given = False  # trained in environments from user code, which config.env does not describe
        self._memory: Memory = None
        self._batch: int | None = None  # number of environments in the memory of `predict`

    def initial_memory(self, num_envs: int) -> Memory:
        """Return the recurrent state at the start of an episode; None for a model without memory."""
        return self.model.initial_memory(num_envs)

    @torch.no_grad()
    def act(
        self,
        obs: Tree,
        memory: Memory,
        starts: Tensor,
        *,
        deterministic: bool = True,
        generator: Generator | None = None,
    ) -> tuple[Tree, Memory]:
        """Return actions (N, *action) in the environment's range for obs (N, *obs), and the memory after them.

        starts: (N,) bool, True where obs is the first of an episode.
        deterministic: the most likely action; else one is sampled with `generator` (None: the policy's own).
        """
        distribution, memory = self.model.step(obs, memory, starts)
        action = distribution.mode() if deterministic else distribution.sample(generator or self.generator)
        return self.model.to_env(action), memory

    @torch.no_grad()
    def value(self, obs: Tree, memory: Memory = None, starts: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Return V(s) (N,) for obs (N, *obs), and the memory after it. Call it before `act`:

            value, memory = policy.value(obs, memory, starts)
            action, memory = policy.act(obs, memory, starts)

        starts: (N,) bool, True where obs is the first of an episode; None: nowhere. If the critic has a memory of its
        own, only this call updates it; `act` updates that of the actor.
        Raises ConfigError if a recurrent model gets no memory, or if a key that the critic needs is missing.
        """
        self.model.features.batch_shape(obs)
        if starts is None:
            starts = torch.zeros(len(leaves(obs)[0]), dtype=torch.bool, device=self.device)
        return self.model.value_step(obs, memory, starts)

    def reset(self) -> None:
        """Clear the memory of `predict`, so that the next call starts new episodes."""
        self._memory, self._batch = None, None

    def predict(self, obs: Any, deterministic: bool = True) -> Any:
        """Return the action for one observation (*obs), or actions for a batch (N, *obs).

        The result is a tensor if obs has tensors, else NumPy. `env.step(policy.predict(obs))` works, also with Dict and
        Tuple spaces. A recurrent model keeps its memory from call to call: call `reset()` when a new episode starts.
        Raises ConfigError for a wrong shape or a missing mask, EnvError for a mask that leaves no legal action.
        """
        seen = flattened(obs) if self.keys else obs
        if self.keys and isinstance(seen, dict):  # drop keys that no network reads, such as a text
            seen = {key: leaf for key, leaf in seen.items() if key in self.keys}
        if self.model.masked:
            self._check_keys(seen)
        given = apply(as_tensor, seen)
        shape = self.model.features.batch_shape(given, self.model.privileged)  # () for one, (N,) for a batch
        if len(shape) > 1:
            raise ConfigError(f"predict: one observation or a batch of them, got leading dimensions {shape}")
        count = shape[0] if shape else 1
        batch = apply(lambda rows: (rows if shape else rows.unsqueeze(0)).to(self.device), given)
        if self.model.masked:
            check_mask(batch[MASK_KEY], self.model.actor_head.mask_layout)
        starts = torch.full((count,), self._batch != count, dtype=torch.bool, device=self.device)
        if self._batch != count:
            self._memory, self._batch = self.initial_memory(count), count
        action, self._memory = self.act(batch, self._memory, starts, deterministic=deterministic)
        action = action if shape else at(action, 0)
        if not any(isinstance(leaf, Tensor) for leaf in leaves(seen)):
            action = apply(lambda rows: rows.cpu().numpy()[()], action)  # a single Discrete action becomes a scalar
        return nest(self.model.action_paths, action)

    def _check_keys(self, seen: Any) -> None:
        """Raise ConfigError if an observation has no action mask, for a model that was trained with masks."""
        if isinstance(seen, dict) and MASK_KEY in seen:
            return
        entries = self.model.actor_head.mask_size
        whole = ", ".join(f"{key!r}: ..." for key in [*sorted(self.keys - {MASK_KEY}), MASK_KEY])
        raise ConfigError(
            f"predict: the key {MASK_KEY!r} is missing, but this policy was trained with masks ({entries} entries, "
            f"1 is legal); pass {{{whole}}}"
        )


def as_tensor(value: Any) -> Tensor:
    """Convert to a tensor of the same shape. float64 becomes float32, since policies compute in float32."""
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def load_policy(run: str | Path, at: int | str = "latest") -> Policy:
    """Load the policy of a run at a step, "latest" or "best". This needs no environment and writes no file.

    Raises RunError if there is no such run or no whole checkpoint, or if its config.yaml was edited in `model`.
    """
    folder = find_run(run)
    path, passed = find_checkpoint(folder, at)
    for reason in passed:
        logging.getLogger("ppo_lab").warning("passed over: %s", reason)
    saved = load_checkpoint(path)
    observation_space, action_space = (
        make_space(saved["about"][name]) for name in ("observation_space", "action_space")
    )
    config = read_config(folder)
    edited = edited_text({key: pair for key, pair in edits(saved["about"], config).items() if key.startswith("model.")})
    model = ActorCritic(config.model, observation_space, action_space)
    try:
        model.load_state_dict(saved["model"])
    except RuntimeError as error:
        reason = edited or " ".join(str(error).split())[:300]
        raise RunError(f"{path}: the weights do not fit the settings of the run: {reason}") from None
    if edited:  # the weights fit, but the policy would act differently than in training
        raise RunError(f"{folder / 'config.yaml'} was edited: {edited}; put it back")
    paths = saved["about"].get("action_paths", model.action_paths)  # older checkpoints lack them: flat keys
    model.action_paths = {key: tuple(path) for key, path in paths.items()}
    policy = Policy(model)
    policy.envs_given = bool(saved["about"]["envs_given"])
    return policy
