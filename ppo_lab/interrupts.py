"""Ctrl-C and the notebook's stop button wait until what is under way is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def interrupt_guard() -> Iterator[InterruptGuard]:
    """A guard for many blocks; the handler that was there before is put back at the end."""
    guard = InterruptGuard()
    try:
        yield guard
    finally:
        guard.release()


class InterruptGuard:
    """In `with guard:` hold a first SIGINT back to the end, then raise KeyboardInterrupt; a second one is not held.

    An interrupt inside an environment's step would leave it one step ahead of the record. Outside the main thread,
    where no signal arrives, the block just runs; so it does where SIGINT is ignored, and under a handler that only
    takes notes (an attribute `only_notes` says so), as the command line's.

    Between blocks signals go to the handler that was there before. Ours stays in its place: to change it asks the
    operating system, which takes as long as several operations on a minibatch.
    """

    def __init__(self) -> None:
        self._before: Any = None  # the handler from before, and never one of another guard: those are passed over
        self._outer: InterruptGuard | None = None  # whose block this one is in
        self._inside = self._pressed = False
        self._ours = self._arrived  # a bound method is another object each time

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        known = signal.getsignal(signal.SIGINT)
        if known is not self._ours:  # the first block, or somebody put another one there
            if known == signal.SIG_IGN or getattr(known, "only_notes", False):
                return
            signal.signal(signal.SIGINT, self._ours)
            other = getattr(known, "__self__", None)
            guard = other if isinstance(other, InterruptGuard) else None
            self._before = known if guard is None else guard._before
            self._outer = guard if guard is not None and guard._inside else None
        self._inside = True

    def __exit__(self, error: type[BaseException] | None, *_: Any) -> None:
        pressed, self._inside, self._pressed = self._pressed, False, False
        if pressed and error is None:
            raise KeyboardInterrupt

    def release(self) -> None:
        """Put the handler back that was there before."""
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is self._ours:
            outer = None if self._outer is None else self._outer._ours
            signal.signal(signal.SIGINT, outer or self._before or signal.SIG_DFL)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self._inside and not self._pressed:
            self._pressed = True
        elif callable(self._before):
            self._before(number, frame)
        else:
            raise KeyboardInterrupt
