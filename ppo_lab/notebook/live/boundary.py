"""Run calls from other threads on the training thread, between two updates, where the trainer's state is consistent."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class Boundary:
    """A queue of calls. Any thread may submit one; only the training thread runs them."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None  # the training thread; None: no training, calls run at once

    def open(self) -> None:
        """Make the current thread the training thread."""
        with self._lock:
            self._thread = threading.current_thread()

    def close(self) -> None:
        """Run the calls that remain; later ones run at once in the calling thread. Call it when training is over."""
        while True:
            while not self._calls.empty():
                self._calls.get()()
            with self._lock:
                if self._calls.empty():  # under the lock: no further call can enter the queue
                    self._thread = None
                    return

    def is_here(self) -> bool:
        """Return whether the current thread is the training thread."""
        return threading.current_thread() is self._thread

    def ask(self, call: Callable[[], T]) -> Future[T]:
        """Run `call()` at the next update boundary; the future gets its result or exception."""
        answer: Future[T] = Future()
        with self._lock:
            elsewhere = self._thread is not None and threading.current_thread() is not self._thread
            if elsewhere:
                self._calls.put(lambda: _answer(answer, call))
        if not elsewhere:
            _answer(answer, call)
        return answer

    def wake(self) -> None:
        """Make `work` check again whether to hold."""
        self._calls.put(_nothing)

    def work(self, hold: Callable[[], bool]) -> None:
        """Run the queued calls, and keep serving the queue while `hold()`. Call it at a boundary."""
        while hold() or not self._calls.empty():
            self._calls.get()()


def _answer(answer: Future[T], call: Callable[[], T]) -> None:
    try:
        result = call()
    except BaseException as error:
        answer.set_exception(error)
    else:
        answer.set_result(result)


def _nothing() -> None:
    pass
