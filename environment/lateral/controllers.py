"""The controller interface, and two baselines that do not learn: zero steering and the challenge's PID."""

from __future__ import annotations

from typing import Any, Protocol

from .driver import PID


class Controller(Protocol):
    """Steers N cars together; called once per row from row 20 on, as the official simulator calls its controllers.

    Its commands before row 100 are discarded. It gets rows t to t+49 of the road, (50, N) each, and the lateral
    acceleration at the end of row t-1, (N,).
    """

    def reset(self, num_envs: int) -> None:
        """Reset all state for N new drives."""
        ...

    def update(self, target: Any, roll: Any, v: Any, a: Any, lataccel: Any) -> Any:
        """Return the steering commands (N,)."""
        ...


class ZeroController:
    """Never steers."""

    def reset(self, num_envs: int) -> None:
        """Do nothing: there is no state."""

    def update(self, target: Any, roll: Any, v: Any, a: Any, lataccel: Any) -> Any:
        """Return (N,) zeros."""
        return 0.0 * lataccel


class PidController:
    """u = p e + i sum(e) + d (e - previous e), e = target - lataccel. Default gains: the challenge's.

    Unusually, the derivative gain is negative: it responds to a growing error later, not sooner, which lowers the jerk.
    """

    def __init__(self, p: float = PID[0], i: float = PID[1], d: float = PID[2]) -> None:
        self.gains = (p, i, d)
        self.reset(0)

    def reset(self, num_envs: int) -> None:
        """Set integral and previous error to 0."""
        self._integral: Any = 0.0
        self._before: Any = 0.0

    def update(self, target: Any, roll: Any, v: Any, a: Any, lataccel: Any) -> Any:
        """Return the commands (N,), computed in the official order of operations to be bit-identical."""
        p, i, d = self.gains
        error = target[0] - lataccel
        self._integral = self._integral + error
        change, self._before = error - self._before, error
        return p * error + i * self._integral + d * change
