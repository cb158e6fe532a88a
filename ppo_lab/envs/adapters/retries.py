"""What becomes of an environment that raises: it is named in one line, or made anew where `env.retry` allows it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import gymnasium

from ppo_lab.errors import EnvError, LabError

if TYPE_CHECKING:
    from ppo_lab.envs.adapters.episode_numbers import EpisodeNumbers  # stands on torch, for which workers do not wait

LOG = logging.getLogger("ppo_lab")


def one_line(text: object, limit: int = 300) -> str:
    """Any text or error as one line of bounded length."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def describe_error(error: BaseException) -> str:
    """'ValueError: what it said' in one line."""
    return one_line(f"{type(error).__name__}: {error}".removesuffix(": "))


class Retries:
    """Makes environments anew that raised: up to `retry` times in a row without a finished episode.

    make: makes environment number i; None: it cannot be made anew.
    """

    def __init__(self, num_envs: int, first: int, make: Callable[[int], gymnasium.Env] | None, retry: int) -> None:
        self._first, self._make, self._retry = first, make, retry if make is not None else 0
        self.failures = [0] * num_envs  # since the last finished episode
        self.texts: list[str] = []  # what was made anew and why; whoever reads them takes them out

    def renewed(self, i: int, old: gymnasium.Env, error: Exception, where: str) -> gymnasium.Env:
        """A new environment in the place of the i-th, which raised `error`.

        Raises EnvError if none may be made, or `make` fails as often, or what it makes is no replacement.
        """
        number = self._first + i
        failed = f"environment {number} raised {describe_error(error)} {where}"
        cause: Exception = error
        may_retry = not isinstance(error, LabError)  # those are ours: it answered, and wrongly
        while self._make is not None and may_retry and self.failures[i] < self._retry:
            self.failures[i] += 1
            with contextlib.suppress(Exception):  # it is broken: closing it may fail as well
                old.close()
            try:
                new = self._make(number)
            except Exception as problem:
                cause = problem
                continue
            if new is old or new.unwrapped is old.unwrapped:
                raise EnvError(f"{failed}; env.retry: env_factory({number}) made the same object again") from error
            if (new.observation_space, new.action_space) != (old.observation_space, old.action_space):
                new.close()
                raise EnvError(f"{failed}; env.retry: made anew it has other spaces") from error
            self.texts.append(f"{failed} and was made anew")
            return new
        if self._retry and may_retry:
            failed += f"; it was made anew {self._retry} times in a row without a finished episode (env.retry)"
            failed += "" if cause is error else f", the last time with {describe_error(cause)}"
        raise EnvError(failed) from cause


class Renewing:
    """What the adapters that can make environments anew tell about it."""

    _renewals = 0
    _first_renewal: str | None = None
    numbers: EpisodeNumbers  # from infos

    def retries(self) -> int:
        """How many times an environment was made anew because it raised (env.retry)."""
        return self._renewals

    def metrics(self) -> dict[str, float]:
        """Numbers for the run's record: means of numbers from infos, and how often an environment was made anew."""
        found = self.numbers.metrics()
        return {**found, "env/retries": float(self._renewals)} if self._renewals else found

    def why_inexact_now(self) -> str | None:
        """Why the run cannot be repeated from its beginning any more: an environment failed. None: it can."""
        return self._first_renewal

    def _take_renewals(self, texts: list[str]) -> None:
        """Count what was made anew and log one line for each; `texts` are empty afterwards."""
        for text in texts:
            LOG.warning("%s; its episode is cut off (env.retry)", text)
        self._renewals += len(texts)
        self._first_renewal = self._first_renewal or texts[0]
        texts.clear()
