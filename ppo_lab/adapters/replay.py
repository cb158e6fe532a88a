"""Exact resume for environments that cannot tell their state: an episode's seed and actions lead back to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from ppo_lab.adapters.loop import Recipe

PROBE_STEPS = 25
LONGEST = 200_000  # steps of an episode whose actions are kept; beyond it a resume would take minutes


class ActionLog:
    """Which episode each of N environments is in, and the actions of the episodes under way."""

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.reset(0)

    def reset(self, run_seed: int) -> None:
        """All N episodes start anew."""
        self.run_seed = run_seed
        self.episode = np.zeros(self.num_envs, np.int64)
        self.length = np.zeros(self.num_envs, np.int64)  # steps of the episode under way
        self.lost = False  # an episode was too long to remember
        self.steps: list[np.ndarray] = []  # (N, *action) each, back to the start of the longest episode under way

    def record(self, action: np.ndarray, ended: Tensor) -> None:
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

    def state_dict(self, obs: Tensor) -> dict[str, Any]:
        """What leads back here, with obs (N, *obs) as it is now to check the way; nothing if that is too far."""
        if self.lost:
            return {}
        actions = []
        for i, length in enumerate(self.length):
            rows = [step[i] for step in self.steps[len(self.steps) - length :]]
            actions.append(torch.from_numpy(np.array(rows)) if rows else torch.zeros(0))
        episode = torch.from_numpy(self.episode.copy())
        return {"run_seed": self.run_seed, "episode": episode, "actions": actions, "obs": obs.clone()}

    def load(self, recipe: Recipe) -> None:
        """Go on from there."""
        self.reset(recipe.run_seed)
        self.episode[:] = recipe.episode
        self.length[:] = [len(actions) for actions in recipe.actions]
        longest = max(recipe.actions, key=len)
        steps = np.zeros((len(longest), self.num_envs, *longest.shape[1:]), longest.dtype)
        for i, actions in enumerate(recipe.actions):
            if len(actions):
                steps[len(steps) - len(actions) :, i] = actions
        self.steps = list(steps)


def recipe_from(saved: Mapping[str, Any]) -> Recipe:
    """A `state_dict` as what the loops understand, in this process or in a worker."""
    episode, obs = (saved[name].numpy(force=True) for name in ("episode", "obs"))
    return Recipe(int(saved["run_seed"]), episode, [rows.numpy(force=True) for rows in saved["actions"]], obs)


def why_not_deterministic(make: Callable[[], gymnasium.Env]) -> str | None:
    """Play the same few steps twice, in two environments: why they differ, None if they do not."""
    seen = []
    for _ in range(2):
        env = make()
        try:
            env.action_space.seed(0)
            obs, _ = env.reset(seed=1)
            answers = [np.array(obs)]
            for _ in range(PROBE_STEPS):
                obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
                answers += [np.array(obs), np.array(reward)]
                if terminated or truncated:
                    break
            seen.append(answers)
        finally:
            env.close()
    same = len(seen[0]) == len(seen[1]) and all(map(np.array_equal, *seen))
    return None if same else "the environment is not deterministic: equal seeds and actions gave different answers"
