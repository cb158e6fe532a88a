"""Ctrl-C and the notebook's stop button wait until what is under way is whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class InterruptGuard:
    """In `with guard:` hold a first SIGINT back to the end, then raise KeyboardInterrupt; a second one is not held.

    An interrupt inside an environment's step would leave it one step ahead of the record. Outside the main thread,
    where no signal arrives, the block just runs; so it does where SIGINT is ignored or was taken in C, and under a
    handler that only takes notes (an attribute `only_notes` says so), as the command line's. Of blocks in blocks the
    outermost counts.

    In the place of Python's own handler ours stays between the blocks of a loop, where it does the same as that: to
    change handlers asks the operating system, which takes as long as several operations on a minibatch.
    """

    def __init__(self) -> None:
        self._depth = self._loops = 0
        self._pressed = False
        self.noted = False  # a handler that only takes notes was asked to stop
        self._before: Any = None  # the handler to be put back after this block
        self._ours = self._arrived  # a bound method is another object each time

    def __enter__(self) -> None:
        if not _in_main_thread():
            return
        self._depth += 1
        if self._depth > 1:
            return
        known = signal.getsignal(signal.SIGINT)
        if known is self._ours or known is None or known == signal.SIG_IGN or getattr(known, "only_notes", False):
            return
        signal.signal(signal.SIGINT, self._ours)
        if self._loops == 0 or known is not signal.default_int_handler:
            self._before = known

    def __exit__(self, error: type[BaseException] | None, *_: Any) -> None:
        if not _in_main_thread():
            return
        self._depth -= 1
        if self._depth > 0:
            return
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
        pressed, self._pressed = self._pressed, False
        if pressed and error is None:
            raise KeyboardInterrupt

    @property
    def pressed(self) -> bool:
        """A press is held back: the block ends with KeyboardInterrupt."""
        return self._pressed

    @property
    def asked(self) -> bool:
        """Somebody wants what runs to stop, by a press that is held back or noted."""
        return self._pressed or self.noted

    @contextmanager
    def loop(self) -> Iterator[InterruptGuard]:
        """Guard many blocks; at the end of the last such loop Python's own handler is restored."""
        counts = _in_main_thread()
        self._loops += counts
        try:
            yield self
        finally:
            self._loops -= counts
            if self._loops == 0 and _in_main_thread() and signal.getsignal(signal.SIGINT) is self._ours:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self._depth == 0 or self._pressed:
            raise KeyboardInterrupt
        self._pressed = True


@contextmanager
def sigterm_held_back(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM inside; at the end of the block SIGTERM does what it would have done.

    Outside the main thread, and where somebody else handles it, the block just runs.
    """
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        stop()

    signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if came:
            os.kill(os.getpid(), signal.SIGTERM)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


GUARD = InterruptGuard()  # there is one signal, so there is one guard
