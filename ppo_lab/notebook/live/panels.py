"""The panels of the dashboard. One is visible at a time, and only that one is drawn."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from ppo_lab.notebook.health import as_html
from ppo_lab.notebook.live import contents
from ppo_lab.notebook.live.session import Session
from ppo_lab.notebook.plots.canvas import to_png
from ppo_lab.runs import read_metrics
from ppo_lab.runs.run import find_run

# as wide as the frames and not stretched by the enclosing box, which would blur them
IMAGE = {"width": "1000px", "max_width": "100%", "object_fit": "contain", "align_self": "flex-start"}
# one transparent pixel: an Image without a value shows the browser's icon for a broken image
NOTHING = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
MOST_OTHERS = 30  # runs offered for comparison


class Panel(Protocol):
    """The content of a tab. Called by one thread at a time."""

    title: str
    widget: Any  # an ipywidget

    def refresh(self, session: Session) -> None:
        """Draw the session's state at this update boundary."""
        ...

    def show(self, in_sight: bool) -> None:
        """Start or stop what the panel needs while it is visible."""
        ...

    def close(self) -> None:
        """Close the widgets."""
        ...


class Picture:
    """A panel with one picture."""

    def __init__(self, title: str, draw: Callable[[Session, Figure | None], Figure | None]) -> None:
        self.title, self._draw = title, draw
        self._image = widgets.Image(value=NOTHING, format="png", layout=IMAGE)
        self._figure: Figure | None = None  # reused: creating axes takes most of a frame's time
        self.widget: Any = self._image

    def refresh(self, session: Session) -> None:
        """Send a new frame."""
        figure = self._draw(session, self._figure)
        if figure is not None:
            self._figure = figure
            self._image.value = to_png(figure, compress_level=1)

    def show(self, in_sight: bool) -> None:
        """Do nothing: there is nothing to start or stop."""

    def close(self) -> None:
        """Close the widget."""
        self._image.close()


class LearningPanel(Picture):
    """The learning curve, and a list of runs to compare with."""

    def __init__(self, session: Session, changed: Callable[[], object]) -> None:
        """Create the widgets. changed: called when other runs were selected."""
        super().__init__("Learning", lambda session, figure: contents.learning(session, figure, self._others(session)))
        run = session.trainer.run
        self._root = run.folder.parent if run is not None else None
        self._read: dict[str, tuple[float, dict[str, np.ndarray]]] = {}  # run -> mtime of its metrics file, columns
        self._choice = widgets.SelectMultiple(description="compare with", rows=4, layout={"width": "300px"})
        self._hint = widgets.HTML("Ctrl-click to select several runs")
        self._row = widgets.HBox([self._choice, self._hint])
        self._choice.observe(lambda _: changed(), names="value")
        self.widget = widgets.VBox([self._image, self._row])
        self.show(True)

    def show(self, in_sight: bool) -> None:
        """List the other runs again when the panel becomes visible; hide the list if there are none."""
        names = _names(self._root) if in_sight else self._choice.options
        if tuple(names) != tuple(self._choice.options):
            chosen = [name for name in self._choice.value if name in names]
            self._choice.options = names
            self._choice.value = chosen
        self._row.layout.display = None if self._choice.options else "none"

    def close(self) -> None:
        """Close the widgets."""
        for widget in (self._choice, self._hint, self._row, self._image, self.widget):
            widget.close()

    def _others(self, session: Session) -> dict[str, dict[str, np.ndarray]]:
        own = session.trainer.run.name if session.trainer.run is not None else None
        chosen = [name for name in self._choice.value if name != own and name not in session.others]
        return {**session.others, **{name: self._columns(name) for name in chosen}}

    def _columns(self, name: str) -> dict[str, np.ndarray]:
        """Return the metrics of another run, read again if its file has changed."""
        assert self._root is not None  # without a root there is no run to choose
        folder = find_run(self._root / name)
        written = (folder / "metrics.jsonl").stat().st_mtime
        if name not in self._read or self._read[name][0] != written:
            self._read[name] = written, read_metrics(folder)
        return self._read[name][1]


class Words:
    """A panel of text."""

    def __init__(self, title: str, write: Callable[[Session], str]) -> None:
        self.title, self._write = title, write
        self.widget: Any = widgets.HTML(layout={"min_height": "120px"})

    def refresh(self, session: Session) -> None:
        """Rewrite the text."""
        self.widget.value = self._write(session)

    def show(self, in_sight: bool) -> None:
        """Do nothing: there is nothing to start or stop."""

    def close(self) -> None:
        """Close the widget."""
        self.widget.close()


def health_html(session: Session) -> str:
    """Format the health findings of a session as HTML."""
    return as_html(contents.health(session))


def _names(root: Path | None) -> list[str]:
    """Return the names of the runs in a folder, the newest first."""
    if root is None or not root.is_dir():
        return []
    written = []
    for place in root.iterdir():
        with suppress(OSError):  # not a run, or one that is being deleted
            written.append(((place / "metrics.jsonl").stat().st_mtime, place.name))
    return [name for _, name in sorted(written, reverse=True)[:MOST_OTHERS]]
