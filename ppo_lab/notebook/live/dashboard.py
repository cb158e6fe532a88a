"""The interactive view of a session: buttons, sliders, and panels in tabs."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
from IPython.display import display

from ppo_lab.notebook.live import contents
from ppo_lab.notebook.live.controls import Controls
from ppo_lab.notebook.live.panels import LearningPanel, Panel, Picture, Words, health_html
from ppo_lab.notebook.live.session import Session
from ppo_lab.notebook.live.static import HIDE_TWIN, LIVE, closing_line, drawn, pictures, progress_line
from ppo_lab.notebook.live.viewer import AgentPanel

SHARE = 0.04  # of the wall time that drawing may take
MOST_FPS = 3.0
START_SECONDS = 0.3
STATUS_SECONDS = 0.25  # between two updates of the text
HEALTH_SECONDS = 2.0  # between two runs of the health checks
TWIN_SECONDS = 30.0  # between two updates of the hidden picture; see `static.HIDE_TWIN`


class Budget:
    """Limit drawing to a share of the wall time, and to a frame rate.

    A token bucket: drawing time accrues at `share` seconds per second. It starts full, at START_SECONDS, and never
    holds more: so a run of five seconds is drawn too.
    """

    def __init__(self, share: float = SHARE, most_fps: float = MOST_FPS) -> None:
        self.share, self.most_fps = share, most_fps
        self.seconds = START_SECONDS
        self._counted = -math.inf  # time of the last accrual, on any clock
        self._last = -math.inf

    def ready(self, now: float) -> bool:
        """Return whether a frame may be drawn now."""
        self.seconds = min(self.seconds + self.share * (now - self._counted), START_SECONDS)
        self._counted = now
        return self.seconds > 0.0 and now - self._last >= 1 / self.most_fps

    def spent(self, began: float, ended: float) -> None:
        """Record that a frame was drawn from `began` to `ended`."""
        self._last = began
        self.seconds -= ended - began


class Dashboard:
    """The widgets of one session. At the end, pictures replace them, which a saved notebook keeps.

    Drawing happens on the training thread, between two updates; the buttons and sliders call the session from the
    kernel's threads.
    """

    def __init__(self, session: Session) -> None:
        self._budget = Budget()
        self._status_at = self._health_at = self._twin_at = -math.inf
        self._over = False
        self._lock = threading.Lock()  # guards _over and _handles: cells show, the training thread removes
        self._controls = Controls(session)
        self._panels: list[Panel] = [
            LearningPanel(session, lambda: session.soon(lambda: self._draw(session))),
            *(Picture(view.title, view.draw) for view in contents.VIEWS),
            AgentPanel(),
            Words("Health", health_html),
            Words("Journal", contents.journal_html),
        ]
        self._tabs = widgets.Tab([panel.widget for panel in self._panels], titles=[each.title for each in self._panels])
        self._tabs.observe(lambda _: session.soon(lambda: self._turn(session)), names="selected_index")
        self._in_sight = 0
        self._style = widgets.HTML(HIDE_TWIN, layout={"display": "none"})
        # sliders above the tabs: visible without scrolling
        self._box = widgets.VBox([self._controls.widget, self._tabs, self._style])
        self._box.add_class(LIVE)
        self._draw(session)
        self._handles: list[tuple[Any, Any]] = []  # per cell that shows it: the widgets, the hidden picture
        self.show(session)

    def show(self, session: Session) -> None:
        """Show the widgets under the current cell too, or the pictures when training is over."""
        with self._lock:
            if not self._over:
                self._twin_at = time.perf_counter()
                twin = _twin(session)
                self._handles.append((display(self._box, display_id=True), display(twin, raw=True, display_id=True)))
                return
        for bundle in pictures(session):
            display(bundle, raw=True)
        print(closing_line(session), flush=True)

    def refresh(self, session: Session, force: bool = False) -> None:
        """Draw if the budget allows it, or if `force`."""
        now = time.perf_counter()
        if force or now - self._status_at >= STATUS_SECONDS:
            self._status_at = now
            self._controls.write()
            self._budget.seconds -= time.perf_counter() - now
        if force or self._budget.ready(now):
            began = time.perf_counter()
            self._draw(session)
            if force or now - self._health_at >= HEALTH_SECONDS:
                self._health_at = now
                self._guarded("Health", lambda: self._badge(session))
            if now - self._twin_at >= TWIN_SECONDS:
                self._twin_at = now
                self._guarded("Learning", lambda: self._update_twins(session))
            self._budget.spent(began, time.perf_counter())

    def finish(self, session: Session) -> None:
        """Replace the widgets by pictures."""
        with self._lock:
            self._over = True
        self._guarded("Agent", lambda: self._panels[self._in_sight].show(False))
        first, second, *others = pictures(session)
        try:
            for handle, twin in self._handles:
                handle.update(first, raw=True)
                twin.update(second, raw=True)
            for bundle in others:
                display(bundle, raw=True)
            print(closing_line(session), flush=True)
        finally:
            for part in (*self._panels, self._controls, self._tabs, self._style, self._box):
                part.close()

    def _update_twins(self, session: Session) -> None:
        bundle = _twin(session)
        with self._lock:
            for _, twin in self._handles:
                twin.update(bundle, raw=True)

    def _draw(self, session: Session) -> None:
        panel = self._panels[self._in_sight]
        if not self._over:
            self._guarded(panel.title, lambda: panel.refresh(session))

    def _guarded(self, title: str, do: Callable[[], None]) -> None:
        """Call `do()` for a panel; report an error as a message, so that it stops neither the others nor the run."""
        try:
            do()
        except Exception as error:
            self._controls.say(f"{title}: {type(error).__name__}: {error}", wrong=True)

    def _turn(self, session: Session) -> None:
        """Switch to the panel whose tab was selected."""
        chosen = self._tabs.selected_index
        if self._over or chosen is None or chosen == self._in_sight:
            return
        old, new = self._panels[self._in_sight], self._panels[chosen]
        self._in_sight = chosen
        self._guarded(old.title, lambda: old.show(False))
        self._guarded(new.title, lambda: new.show(True))
        self._draw(session)

    def _badge(self, session: Session) -> None:
        """Show the number of warnings on the tab of the health panel."""
        place = next(i for i, panel in enumerate(self._panels) if panel.title == "Health")
        wrong = [finding for finding in contents.health(session) if finding.severity == "warning"]
        title = f"Health ({len(wrong)})" if wrong else "Health"
        if self._tabs.get_title(place) != title:
            self._tabs.set_title(place, title)


def _twin(session: Session) -> dict[str, Any]:
    text = f"during training: {progress_line(session)}"
    return drawn(text, lambda: contents.learning(session, None, session.others)) or {"text/plain": text}
