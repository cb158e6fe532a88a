"""Delay Ctrl-C and the notebook's stop button until the operation in progress is complete."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class InterruptGuard:
    """A context manager that delays the first SIGINT to the end of its block, then raises KeyboardInterrupt.

    An interrupt inside an environment's step would leave the environment one step ahead of the record. A second SIGINT
    in the block is not delayed. Of nested blocks the outermost counts. The guard does nothing outside the main thread,
    where no signal arrives; if SIGINT is ignored or handled in C; and under a handler that only records the signal
    (it has an attribute `only_notes`), such as that of the command line.

    Between the blocks of a `loop` our handler stays in the place of Python's own and does the same as that one:
    replacing a handler is a system call, which takes as long as several operations on a minibatch.
    """

    def __init__(self) -> None:
        self._depth = self._loops = 0
        self._pressed = False
        self.noted = False  # a handler with `only_notes` received a signal
        self._before: Any = None  # the handler to restore after this block
        self._ours = self._arrived  # kept, since every access to a bound method makes a new object

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
        """Whether a SIGINT was delayed: the block will end with KeyboardInterrupt."""
        return self._pressed

    @property
    def asked(self) -> bool:
        """Whether a stop is requested: by a delayed SIGINT, or by a signal that a handler recorded."""
        return self._pressed or self.noted

    @contextmanager
    def loop(self) -> Iterator[InterruptGuard]:
        """Keep our handler between many blocks; restore Python's own at the end of the outermost loop."""
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
    """Call `stop` on a SIGTERM within the block; after the block the signal has its default effect.

    Does nothing outside the main thread, or if SIGTERM has a handler already.
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


GUARD = InterruptGuard()  # one for the process, as there is one handler of SIGINT
