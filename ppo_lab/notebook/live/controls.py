"""The buttons and sliders of the dashboard, which steer a session."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from html import escape
from typing import Any

import ipywidgets as widgets

from ppo_lab.config import LIVE
from ppo_lab.errors import LabError
from ppo_lab.notebook.live.contents import last_set
from ppo_lab.notebook.live.session import Session
from ppo_lab.notebook.live.sliders import Slider, slider_label
from ppo_lab.notebook.live.static import progress_line
from ppo_lab.runs.checkpoint import checkpoints

FIRST = ("learning_rate", "clip_coef", "ent_coef")  # the settings that are changed most often
WIDTH = {"width": "auto"}
NO_RUN = "needs a run folder: run.root is null"
ENVS_GIVEN = "the trainer was given its environments: use session.fork(envs=...) in a cell"
LIST_SECONDS = 2.0  # between two scans of the checkpoints on disk


class Controls:
    """Buttons and sliders for a session, and a message line that reports the result of each.

    The kernel calls them from its own threads and the training thread writes into them: both hold a lock.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.RLock()
        self._listed_at = -math.inf
        self._waiting = 0  # calls of buttons that have not finished
        self.status = widgets.HTML()
        self._progress = widgets.FloatProgress(min=0.0, layout={"width": "180px"})
        self._engine = widgets.HTML()
        self._message = widgets.HTML(layout={"height": "24px"})
        self._hold = _button("Pause", "pause", "pause at the next update", self._toggle)
        step = _button("One update", "step-forward", "do one update, then pause", lambda: session.step(wait=False))
        stop = _button("Stop", "stop", "end training; launch again to continue", lambda: session.stop(wait=False))
        self._undo = _button("Undo", "undo", "undo the last change of a setting", self._take_back)
        self._save = _button("Save", "save", "save a checkpoint at the next update", lambda: self._ask(self._saved))
        self._fork = _button("Fork", "code-fork", "continue in a new run from here", lambda: self._ask(self._forked))
        self._places = widgets.Dropdown(description="checkpoint", layout={"width": "210px"})
        self._rewind = _button("Rewind", "history", "continue in a new run from this checkpoint", self._go_back)
        keys = [*FIRST, *(key for key in LIVE if key not in FIRST)]
        self._sliders = [Slider(key, last_set(session, key), self._change, self._lock) for key in keys]
        buttons = [self._hold, step, stop, self._undo, self._save, self._fork, self._rewind, self._places]
        rows = [
            widgets.HBox(buttons, layout=WRAP),
            widgets.HBox([self._progress, self.status]),
            self._engine,
            self._message,
            widgets.HBox([slider.widget for slider in self._sliders], layout=WRAP),
        ]
        self.widget = widgets.VBox(rows)
        self._parts = [*rows, *buttons, self._progress, self.status, self.widget]
        self.write()

    def write(self) -> None:
        """Update text, buttons and sliders from the session."""
        with self._lock:
            session, pending = self._session, self._session.pending
            state = session.trainer.state
            inexact = session.trainer.inexact
            why = "" if inexact is None else f' <span title="{escape(inexact)}">ⓘ</span>'
            self.status.value = ("paused: " if session.paused else "") + escape(progress_line(session)) + why
            self._engine.value = f'<small style="opacity: 0.7">{escape(session.trainer.engine_line)}</small>'
            self._progress.max, self._progress.value = float(state.total_timesteps), float(state.global_step)
            self._hold.description, self._hold.icon = ("Run", "play") if session.paused else ("Pause", "pause")
            self._undo.disabled = not session.can_undo
            for slider in self._sliders:
                key = slider.key
                slider.show(in_force(session, key), pending.get(key), pending.get(key, last_set(session, key)))
            if time.monotonic() - self._listed_at >= LIST_SECONDS:
                self._listed_at = time.monotonic()
                self._list_checkpoints()
            self._enable()

    def say(self, text: str, wrong: bool = False) -> None:
        """Show a message; `wrong` marks an error."""
        self._message.value = f"<b>{escape(text)}</b>" if wrong else f"<i>{escape(text)}</i>"

    def close(self) -> None:
        """Close the widgets."""
        for part in (*self._sliders, *self._parts):
            part.close()

    def _list_checkpoints(self) -> None:
        run = self._session.trainer.run
        steps = tuple(reversed(checkpoints(run.checkpoints))) if run is not None else ()
        options = tuple((f"step {step:,}", step) for step in steps)
        if options != self._places.options:
            chosen = self._places.value
            self._places.options = options
            if steps:  # None would mean "fork from here"
                self._places.value = chosen if chosen in steps else steps[0]

    def _enable(self) -> None:
        """Enable Save, Fork and Rewind where they can work; disable them while an earlier click is still pending."""
        trainer = self._session.trainer
        for button in (self._save, self._fork, self._rewind):
            given = trainer.envs_given and trainer.env_factory is None  # a factory can make them again
            why = ENVS_GIVEN if given and button is not self._save else ""
            why = NO_RUN if trainer.run is None else why
            nothing = button is self._rewind and not self._places.options
            button.disabled = bool(why) or bool(self._waiting) or nothing
            button.tooltip = why or button.tooltip

    def _toggle(self) -> None:
        if self._session.paused:
            self._session.resume()
        else:
            self._session.pause()
        self.write()

    def _change(self, key: str, value: Any) -> None:
        with self._lock:
            self._session.set(source="dashboard", **{key: value})
            self.write()  # "pending" at once, also while paused

    def _take_back(self) -> None:
        with self._lock:
            back = self._session.undo(source="dashboard")
            self.say(f"undone: {', '.join(f'{key} returns to {slider_label(value)}' for key, value in back.items())}")
            self.write()

    def _go_back(self) -> None:
        step = self._places.value
        self._ask(lambda: self._forked(step))

    def _ask(self, call: Callable[[], str]) -> None:
        """Run `call()` at the next boundary, and show the text it returns, or its error, when it is done."""
        with self._lock:
            self._waiting += 1
            self._enable()
        self.say("waiting for the next update ...")

        def done(answer: Future[str]) -> None:
            with self._lock:
                self._waiting -= 1
                self._listed_at = -math.inf
            error = answer.exception()
            if error is None:
                self.say(answer.result())
            else:
                self.say(str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}", wrong=True)
            self.write()

        self._session.soon(call).add_done_callback(done)

    def _saved(self) -> str:
        path = self._session.trainer.save()
        return f"saved: {path}" if path is not None else "to be saved at the end of this update"

    def _forked(self, at: int | None = None) -> str:
        old = self._session.trainer.run
        name = self._session.fork(at)
        return f"{old.name if old is not None else '?'} stays unchanged; {name} continues from step {self._step()}"

    def _step(self) -> str:
        return f"{self._session.trainer.state.global_step:,}"


WRAP = {"flex_flow": "row wrap", "align_items": "center"}


def in_force(session: Session, key: str) -> float:
    """Return the value that the last update used, with schedules and live changes applied."""
    used = session.records.last(f"update/{key}")
    return used if used == used else last_set(session, key)


def _button(text: str, icon: str, tooltip: str, press: Callable[[], None]) -> Any:
    button = widgets.Button(description=text, icon=icon, tooltip=tooltip, layout=WIDTH)
    button.on_click(lambda _: press())
    return button
