"""What becomes of an environment that raises: it is named in one line, or made anew where `env.retry` allows it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import gymnasium

from ppo_lab.errors import EnvError, LabError


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
