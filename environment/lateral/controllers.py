"""Controllers that learn nothing, for comparison: no steering at all, and the challenge's PID."""

from __future__ import annotations

from typing import Any, Protocol

from environment.lateral.driver import PID


class Controller(Protocol):
    """N cars steered together; called once a row from row 20 on, as the official simulator calls its controllers.

    What it answers before row 100 is thrown away. It is told the rows t to t+49 of the road, (50, N) each, and the
    lateral acceleration that row t-1 ended with, (N,).
    """

    def reset(self, num_envs: int) -> None:
        """Forget everything: N new drives begin."""
        ...

    def update(self, target: Any, roll: Any, v: Any, a: Any, lataccel: Any) -> Any:
        """Steering commands (N,)."""
        ...


class ZeroController:
    """Hands off the wheel."""

    def reset(self, num_envs: int) -> None:
        """Nothing to forget."""

    def update(self, target: Any, roll: Any, v: Any, a: Any, lataccel: Any) -> Any:
        """(N,) zeros."""
        return 0.0 * lataccel


class PidController:
    """u = p e + i sum(e) + d (e - e before), e = target - lataccel, with the challenge's gains unless told otherwise.

    Unlike most, its derivative gain is negative: it answers a growing error later, not sooner, which lowers the jerk.
    """

    def __init__(self, p: float = PID[0], i: float = PID[1], d: float = PID[2]) -> None:
        self.gains = (p, i, d)
        self.reset(0)

    def reset(self, num_envs: int) -> None:
        """Integral and last error are 0 again."""
        self._integral: Any = 0.0
        self._before: Any = 0.0

    def update(self, target: Any, roll: Any, v: Any, a: Any, lataccel: Any) -> Any:
        """(N,) in the official order of operations, so that the last bit is the official one."""
        p, i, d = self.gains
        error = target[0] - lataccel
        self._integral = self._integral + error
        change, self._before = error - self._before, error
        return p * error + i * self._integral + d * change
