"""Exact resume for environments that cannot tell their state: an episode's seed and actions lead back to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from ppo_lab.adapters.loop import Recipe
from ppo_lab.adapters.rows import Tree, equal, row_of
from ppo_lab.flat_spaces import flatten_space, flatten_value, map_leaves, parts
from ppo_lab.trees import Tree as Tensors
from ppo_lab.trees import apply

PROBE_STEPS = 25
LONGEST = 200_000  # steps of an episode whose actions are kept; beyond it a resume would take minutes


class ActionLog:
    """Which episode each of N environments is in, and the actions of the episodes under way."""

    def __init__(self, num_envs: int, formats: Any) -> None:
        """formats: shape and dtype of the actions of all N, as `steps.action_format` says."""
        self.num_envs = num_envs
        self._formats = formats
        self.reset(0)

    def reset(self, run_seed: int) -> None:
        """All N episodes start anew."""
        self.run_seed = run_seed
        self.episode = np.zeros(self.num_envs, np.int64)
        self.length = np.zeros(self.num_envs, np.int64)  # steps of the episode under way
        self.lost = False  # an episode was too long to remember
        self.steps: list[Tree] = []  # (N, *action) each, back to the start of the longest episode under way

    def record(self, action: Tree, ended: Tensor) -> None:
        """One step of all: action (N, *action), which stays as it is; ended (N,) bool."""
        self.length += 1
        if len(self.steps) >= LONGEST and int(self.length.max()) > LONGEST:
            self.steps, self.lost = [], True
        if not self.lost:
            self.steps.append(action)
        done = ended.numpy()
        if done.any():
            self.episode[done] += 1
            self.length[done] = 0
            longest = int(self.length.max())
            if len(self.steps) > 2 * longest + 64:  # now and then: cutting a list costs its length
                del self.steps[: len(self.steps) - longest]

    def state_dict(self, obs: Tensors) -> dict[str, Any]:
        """What leads back here, with obs (N, *obs) as it is now to check the way; nothing if that is too far."""
        if self.lost:
            return {}
        actions = []
        for i, length in enumerate(self.length):
            rows = [row_of(step, i) for step in self.steps[len(self.steps) - length :]]
            actions.append(map_leaves(lambda one, *rows: _stacked(rows, one), self._formats, *rows))
        episode = torch.from_numpy(self.episode.copy())
        return {"run_seed": self.run_seed, "episode": episode, "actions": actions, "obs": apply(torch.clone, obs)}

    def load(self, recipe: Recipe) -> None:
        """Go on from there."""
        self.reset(recipe.run_seed)
        self.episode[:] = recipe.episode
        self.length[:] = [steps_of(actions) for actions in recipe.actions]
        longest = int(self.length.max())
        steps = map_leaves(lambda one: np.zeros((longest, *one[0]), one[1]), self._formats)  # (longest, N, *action)
        for i, length in enumerate(self.length):
            for key, array in parts(steps).items():
                array[longest - length :, i] = parts(recipe.actions[i])[key] if length else 0
        self.steps = [row_of(steps, t) for t in range(longest)]


def _stacked(rows: tuple[np.ndarray, ...], one: tuple[tuple[int, ...], np.dtype]) -> Tensor:
    """Actions of one environment as (steps, *action)."""
    return torch.from_numpy(np.array(rows, one[1]).reshape(-1, *one[0][1:]))


def steps_of(actions: Tree) -> int:
    """How many steps (steps, *action) holds."""
    return len(next(iter(parts(actions).values())))


def recipe_from(saved: Mapping[str, Any]) -> Recipe:
    """A `state_dict` as what the loops understand, in this process or in a worker."""
    obs, actions = (saved[name] for name in ("obs", "actions"))
    episode = saved["episode"].numpy(force=True)
    return Recipe(int(saved["run_seed"]), episode, [_arrays(rows) for rows in actions], _arrays(obs))


def _arrays(tensors: Tensors) -> Tree:
    return map_leaves(lambda tensor: tensor.numpy(force=True), tensors)


def why_not_deterministic(make: Callable[[], gymnasium.Env]) -> str | None:
    """Play the same few steps twice, in two environments: why they differ, None if they do not."""
    seen: list[list[Tree]] = []
    for _ in range(2):
        env = make()
        try:
            seen.append(_played(env))
        finally:
            env.close()
    same = len(seen[0]) == len(seen[1]) and all(map(equal, *seen))
    return None if same else "the environment is not deterministic: equal seeds and actions gave different answers"


def _played(env: gymnasium.Env) -> list[Tree]:
    """What an environment answers to one seed and a few actions, always the same."""
    space = env.observation_space
    flatten_space(space)  # refuses what no network takes
    env.action_space.seed(0)
    obs, info = env.reset(seed=1)
    answers = [map_leaves(np.array, flatten_value(space, obs))]
    for _ in range(PROBE_STEPS):
        mask = info.get("action_mask") if isinstance(info, dict) else None
        obs, reward, terminated, truncated, info = env.step(_legal_action(env.action_space, mask))
        answers += [map_leaves(np.array, flatten_value(space, obs)), np.array(reward)]
        if terminated or truncated:
            break
    return answers


def _legal_action(space: gymnasium.Space, mask: Any) -> Any:
    """A random action; one that the mask allows where the space has choices and the environment says which."""
    if isinstance(space, Discrete) and mask is not None:
        return space.sample(mask=np.asarray(mask, np.int8))
    return space.sample()
