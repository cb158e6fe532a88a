"""Ctrl-C and the notebook's stop button wait until what is under way is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Hold a first SIGINT back until the block has ended, then raise KeyboardInterrupt; a second one is not held.

    An interrupt inside an environment's step would leave it one step ahead of the record. Outside the main thread,
    where no signal arrives, the block just runs; so it does under a handler that only takes notes (an attribute
    `only_notes` says so), as the command line's.
    """
    noted = getattr(signal.getsignal(signal.SIGINT), "only_notes", False)
    if noted or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
    if pressed:
        raise KeyboardInterrupt
