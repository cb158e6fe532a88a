"""Handle an environment that raises: report it in one line, or recreate it if `env.retry` allows it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import gymnasium

from ppo_lab.errors import EnvError, LabError, describe_error


class Retries:
    """Recreates environments that raised: up to `retry` times in a row without a finished episode.

    make: makes environment number i; None: it cannot be recreated.
    """

    def __init__(self, num_envs: int, first: int, make: Callable[[int], gymnasium.Env] | None, retry: int) -> None:
        self._first, self._make, self._retry = first, make, retry if make is not None else 0
        self.failures = [0] * num_envs  # since the last finished episode
        self.texts: list[str] = []  # what was recreated and why; the reader clears the list

    def renewed(self, i: int, old: gymnasium.Env, error: Exception, where: str) -> gymnasium.Env:
        """Return a new environment to replace the i-th, which raised `error`.

        Raises EnvError if no retry is allowed or left, if `make` fails every time, or if what it makes cannot replace
        the old one.
        """
        number = self._first + i
        failed = f"environment {number} raised {describe_error(error)} {where}"
        cause: Exception = error
        may_retry = not isinstance(error, LabError)  # our own checks raise it: the environment answered, but wrongly
        while self._make is not None and may_retry and self.failures[i] < self._retry:
            self.failures[i] += 1
            with contextlib.suppress(Exception):  # it is broken, so closing it may fail as well
                old.close()
            try:
                new = self._make(number)
            except Exception as problem:
                cause = problem
                continue
            if new is old or new.unwrapped is old.unwrapped:
                raise EnvError(f"{failed}; env.retry: env_factory({number}) returned the same object again") from error
            if (new.observation_space, new.action_space) != (old.observation_space, old.action_space):
                new.close()
                raise EnvError(f"{failed}; env.retry: the new environment has other spaces") from error
            self.texts.append(f"{failed} and was recreated")
            return new
        if self._retry and may_retry:
            failed += f"; it was recreated {self._retry} times in a row without a finished episode (env.retry)"
            failed += "" if cause is error else f", the last time with {describe_error(cause)}"
        raise EnvError(failed) from cause
