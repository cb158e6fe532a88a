"""The view of a session that a person watches: picture, buttons, sliders."""

from __future__ import annotations

import math
import time
from typing import Any

import ipywidgets as widgets
from IPython.display import display

from ppo_lab.notebook.plots import to_png
from ppo_lab.notebook.session import Session
from ppo_lab.notebook.sliders import Slider
from ppo_lab.notebook.static import as_bundle, closing_line, figure_of, progress_line

SLIDERS = ("learning_rate", "clip_coef", "ent_coef")
SHARE = 0.05  # of the time may go into drawing
MOST_FPS = 3.0
START_SECONDS = 0.5
STATUS_SECONDS = 0.2  # between two changes of the text, which costs next to nothing
IMAGE = {"width": "1000px", "max_width": "100%", "object_fit": "contain"}  # as wide as the frames: no blur


class Budget:
    """When to draw again, so that drawing takes at most a share of the time.

    Seconds to draw in are earned as time goes by. Some are there at the beginning, and never more than those can be
    saved: a run that is over in five seconds is worth watching too.
    """

    def __init__(self, share: float = SHARE, most_fps: float = MOST_FPS) -> None:
        self.share, self.most_fps = share, most_fps
        self.seconds = START_SECONDS
        self._counted = -math.inf  # earned up to here, on any clock
        self._last = -math.inf

    def ready(self, now: float) -> bool:
        """Whether a frame may be drawn now."""
        self.seconds = min(self.seconds + self.share * (now - self._counted), START_SECONDS)
        self._counted = now
        return self.seconds > 0.0 and now - self._last >= 1 / self.most_fps

    def spent(self, began: float, ended: float) -> None:
        """A frame was drawn from `began` to `ended`."""
        self._last = began
        self.seconds -= ended - began


class Dashboard:
    """Widgets over one session. They are replaced by a picture at the end, which a saved notebook keeps.

    Drawing happens in the thread that trains, between two updates; the buttons and sliders call the session from
    threads of the kernel's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._budget = Budget()
        self._status_at = -float("inf")
        self._pause = widgets.Button(description="Pause", icon="pause")
        self._stop = widgets.Button(description="Stop", icon="stop", tooltip="end training; launch(trainer) goes on")
        self._status = widgets.HTML()
        self._figure = figure_of(session)
        # with a first frame: an Image without a value shows the browser's sign for a broken one
        self._image = widgets.Image(value=self._frame(session), format="png", layout=IMAGE)
        self._sliders = [Slider(key, _in_force(session, key), self._change) for key in SLIDERS]
        self._pause.on_click(self._toggle)
        self._stop.on_click(lambda _: session.stop(wait=False))
        buttons = widgets.HBox([self._pause, self._stop, self._status])
        self._row = widgets.HBox([slider.widget for slider in self._sliders], layout={"flex_flow": "row wrap"})
        self._box = widgets.VBox([buttons, self._row, self._image])  # sliders above: in sight without scrolling
        self._write(session)
        self._handle = display(self._box, display_id=True)

    def refresh(self, session: Session, force: bool = False) -> None:
        """Draw if the budget allows it; force: anyway."""
        now = time.perf_counter()
        if force or now - self._status_at >= STATUS_SECONDS:
            self._status_at = now
            self._write(session)
        if force or self._budget.ready(now):
            began = time.perf_counter()
            self._image.value = self._frame(session)
            self._budget.spent(began, time.perf_counter())

    def finish(self, session: Session) -> None:
        """A static picture takes the place of the widgets."""
        self._handle.update(as_bundle(to_png(figure_of(session)), progress_line(session)), raw=True)
        print(closing_line(session), flush=True)
        for widget in (
            *self._sliders_widgets(),
            self._pause,
            self._stop,
            self._status,
            self._row,
            self._image,
            self._box,
        ):
            widget.close()

    def _frame(self, session: Session) -> bytes:
        return to_png(figure_of(session, self._figure), compress_level=1)

    def _sliders_widgets(self) -> list[Any]:
        return [part for slider in self._sliders for part in (slider.slider, slider.note, slider.widget)]

    def _write(self, session: Session) -> None:
        self._status.value = ("paused: " if session.paused else "") + progress_line(session)
        pending = session.pending
        for slider in self._sliders:
            slider.show(_in_force(session, slider.key), pending.get(slider.key))

    def _toggle(self, _: Any) -> None:
        session = self._session
        if session.paused:
            session.resume()
            self._pause.description, self._pause.icon = "Pause", "pause"
        else:
            session.pause()
            self._pause.description, self._pause.icon = "Run", "play"

    def _change(self, key: str, value: Any) -> None:
        self._session.set(source="dashboard", **{key: value})
        self._write(self._session)  # "pending" at once, also while paused


def _in_force(session: Session, key: str) -> float:
    """What the last update used: schedules and live changes applied."""
    used = session.records.last(f"update/{key}")
    live = session.trainer.state.live
    configured = live[key].value if key in live else getattr(session.trainer.config.ppo, key)
    return used if used == used else configured
