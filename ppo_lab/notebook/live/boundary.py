"""What other threads want done between two updates, where nothing of the trainer moves."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class Boundary:
    """A queue of calls. One thread, the one that trains, does them; any thread asks."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None  # the one that trains; None: nobody does, calls are done at once

    def open(self) -> None:
        """This thread trains from now on."""
        with self._lock:
            self._thread = threading.current_thread()

    def close(self) -> None:
        """Training is over: do what is left, and from now on everything at once in the thread that asks."""
        while True:
            while not self._calls.empty():
                self._calls.get()()
            with self._lock:
                if self._calls.empty():  # from here on nobody puts a call in the queue
                    self._thread = None
                    return

    def is_here(self) -> bool:
        """This thread is the one that trains."""
        return threading.current_thread() is self._thread

    def ask(self, call: Callable[[], T]) -> Future[T]:
        """Have `call()` done at the next boundary; the future has what it returned or raised."""
        answer: Future[T] = Future()
        with self._lock:
            elsewhere = self._thread is not None and threading.current_thread() is not self._thread
            if elsewhere:
                self._calls.put(lambda: _answer(answer, call))
        if not elsewhere:
            _answer(answer, call)
        return answer

    def wake(self) -> None:
        """Let `work` look again at whether to hold."""
        self._calls.put(_nothing)

    def work(self, hold: Callable[[], bool]) -> None:
        """At a boundary: do what was asked for, and go on doing so while `hold()`."""
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
