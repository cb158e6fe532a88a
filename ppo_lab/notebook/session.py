"""A session: training under way in a notebook, and what one may ask of it meanwhile."""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np
from IPython.core.getipython import get_ipython

from ppo_lab.export import Policy
from ppo_lab.notebook.history import History
from ppo_lab.trainer import Trainer, Update

T = TypeVar("T")


class View(Protocol):
    """What shows a session: the dashboard, or lines of text. Called by the thread that trains."""

    def refresh(self, session: Session, force: bool = False) -> None:
        """An update is done: show it, if it is time to; force: show it anyway."""
        ...

    def finish(self, session: Session) -> None:
        """Training is over: leave a picture that stays."""
        ...


class Session:
    """Training under way, or over. Every method may be called from any thread and any cell."""

    def __init__(self, trainer: Trainer, history: History | None = None) -> None:
        self.trainer = trainer
        self.records = history if history is not None else History()
        self.error: BaseException | None = None  # what ended training, if not the end of it
        self._view: View | None = None
        self._done = threading.Event()
        self._stop = False
        self._paused = False
        self._asked: dict[str, tuple[Any, int]] = {}  # setting -> value asked for, updates done by then
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # for the training thread to do
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        state = "failed" if self.error else "paused" if self.paused else "training" if self.running else "done"
        return f"<Session {state} at step {self.trainer.state.global_step:,}>"

    # ---- for the person --------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Training has not ended; it may be paused."""
        return not self._done.is_set()

    @property
    def paused(self) -> bool:
        """`pause` was called and `resume` was not."""
        return self._paused and self.running

    @property
    def history(self) -> dict[str, np.ndarray]:
        """Every metric as an array over the updates so far, NaN where it did not exist."""
        return self.records.columns()

    def wait(self) -> None:
        """Return when training is over; raise what it raised. The interrupt button ends training, not the notebook."""
        try:
            self._done.wait()
        except KeyboardInterrupt:
            self.stop()
        if self.error is not None:
            raise self.error

    def stop(self, wait: bool = True) -> None:
        """End training at the next update boundary. `launch(trainer)` goes on from there."""
        self._stop = True
        self._calls.put(_nothing)  # wakes a paused session
        if wait and threading.current_thread() is not self._thread:
            self._done.wait()

    def pause(self) -> None:
        """Hold training at the next update boundary."""
        self._paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        self._calls.put(_nothing)

    def set(self, *, source: str = "code", **changes: Any) -> None:
        """Change settings of ppo while it trains, e.g. set(learning_rate=1e-4). Raises ConfigError."""
        self.trainer.set(source=source, **changes)
        with self._lock:
            self._asked.update({key: (value, self.trainer.state.update) for key, value in changes.items()})

    @property
    def pending(self) -> dict[str, Any]:
        """Changes made by `set` that the trainer has not taken yet: it does so when the next update begins."""
        with self._lock:
            return {key: value for key, (value, _) in self._asked.items()}

    def policy(self) -> Policy:
        """The policy at the last update boundary, as a copy. While training runs, this waits for the next boundary."""
        return self.at_boundary(self.trainer.policy)

    def at_boundary(self, call: Callable[[], T]) -> T:
        """Have `call()` done between two updates, where nothing of the trainer moves; returns what it returns."""
        answer: Future[T] = Future()
        with self._lock:
            elsewhere = self.running and threading.current_thread() is not self._thread
            if elsewhere:
                self._calls.put(lambda: _answer(answer, call))
        if not elsewhere:
            _answer(answer, call)
        return answer.result()

    # ---- the training thread ---------------------------------------------------------------------------------------

    def train_in_background(self, view: View) -> None:
        """Start a thread that trains and shows it; called once, from the cell it belongs to."""
        shell: Any = get_ipython()
        cell = shell.get_parent() if shell is not None and hasattr(shell, "get_parent") else None

        def train() -> None:
            if cell is not None:
                shell.set_parent(cell)  # else prints, pictures and errors appear under whichever cell ran last
            self._train(view)
            if self.error is not None and shell is not None:
                shell.showtraceback(_exception_info(self.error))

        # daemon: a kernel restart does not wait for it
        self._thread = threading.Thread(target=train, name="ppo_lab training", daemon=True)
        self._thread.start()

    def train_here(self, view: View) -> None:
        """Train and show it until training is over; raises what it raised."""
        self._thread = threading.current_thread()
        self._train(view)
        if self.error is not None:
            raise self.error

    def _train(self, view: View) -> None:
        self._view = view
        try:
            self._updates()
        except BaseException as error:
            self.error = error
        try:
            self._show(lambda: view.finish(self))
        finally:
            with self._lock:
                self._done.set()  # from here on nobody puts a call in the queue
            while not self._calls.empty():
                self._calls.get()()

    def _updates(self) -> None:
        try:
            for update in self.trainer:
                self._take(update)
                if self._boundary():
                    break
        except KeyboardInterrupt:  # only on the main thread; the update it fell into is done to its end
            self._stop = True
            for update in self.trainer:
                self._take(update)
                break

    def _take(self, update: Update) -> None:
        self.records.append(update)
        live = self.trainer.state.live
        with self._lock:
            for key, (value, updates_before) in list(self._asked.items()):
                taken = key in live and live[key].value == value
                if taken or update.update > updates_before + 1:  # it was taken, and changed again since
                    del self._asked[key]
        self._refresh()

    def _boundary(self) -> bool:
        """Between two updates: do what other threads asked for, wait while paused. True: stop."""
        if self._paused and not self._stop:
            self._refresh(force=True)
        while not self._stop and (self._paused or not self._calls.empty()):
            self._calls.get()()
        return self._stop

    def _refresh(self, force: bool = False) -> None:
        view = self._view
        if view is not None:
            self._show(lambda: view.refresh(self, force))

    def _show(self, show: Callable[[], None]) -> None:
        try:
            show()
        except Exception as error:  # a picture that cannot be drawn is no reason to lose a run
            warnings.warn(f"the view of this session failed: {type(error).__name__}: {error}", stacklevel=2)
            self._view = None


def _answer(answer: Future[T], call: Callable[[], T]) -> None:
    try:
        answer.set_result(call())
    except BaseException as error:
        answer.set_exception(error)


def _exception_info(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """As sys.exc_info() gives it, without this file's own frames in front."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return type(error), error, trace


def _nothing() -> None:
    pass
