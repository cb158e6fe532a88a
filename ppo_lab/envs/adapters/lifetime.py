"""Wrappers that control when an environment object is seeded and how long it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium

from ppo_lab.errors import EnvError


class SeedOnce(gymnasium.Wrapper):
    """Passes on only the seed of the first reset, as Gymnasium's reset documents it (`env.seed_episodes`).

    For environments that start over with every seed: a playlist of levels, a file to read from.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._seeded = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; drop every seed but the first."""
        given, self._seeded = (None if self._seeded else seed), self._seeded or seed is not None
        return self.env.reset(seed=given, options=options)


class NewEachEpisode(gymnasium.Wrapper):
    """Makes a new object for each episode, so that no state outlives an episode (`env.new_each_episode`)."""

    def __init__(self, make: Callable[[], gymnasium.Env]) -> None:
        super().__init__(make())
        self._make, self._used = make, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset a new environment. Raises EnvError if `make` returns the old one again."""
        if self._used:
            self.env.close()
            fresh = self._make()
            if fresh.unwrapped is self.env.unwrapped:
                raise EnvError("env.new_each_episode: the same object was returned again; make a new one at each call")
            self.env = fresh
        self._used = True
        return self.env.reset(seed=seed, options=options)
