"""Output without widgets: progress lines while training runs, and pictures and a closing line when it is over."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from IPython.core.getipython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from ppo_lab.notebook.health import as_markdown
from ppo_lab.notebook.live import contents
from ppo_lab.notebook.plots.canvas import number, to_small_png

if TYPE_CHECKING:
    from ppo_lab.notebook.live.session import Session


# A box of widgets of this class is followed by a picture that is hidden while the widgets live. It shows when a
# notebook that was saved meanwhile is reopened without its kernel, where JupyterLab shows an error for the widgets.
LIVE = "ppo-lab-live"
HIDE_TWIN = f"<style>.jp-OutputArea-child:has(.{LIVE}) + .jp-OutputArea-child {{ display: none; }}</style>"


class Lines:
    """The view of a headless session."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds  # between two lines
        self._last = time.monotonic()

    def refresh(self, session: Session, force: bool = False) -> None:
        """Print a progress line every `seconds`, or if `force`."""
        if force or time.monotonic() - self._last >= self.seconds:
            self._last = time.monotonic()
            print(progress_line(session), flush=True)

    def finish(self, session: Session) -> None:
        """Show the pictures and print the closing line."""
        self.show(session)

    def show(self, session: Session) -> None:
        """Show the same as `finish`."""
        if get_ipython() is not None:
            for bundle in pictures(session):
                display(bundle, raw=True)
        print(closing_line(session), flush=True)


def pictures(session: Session) -> list[dict[str, Any]]:
    """Return a static version of every panel, for `display(..., raw=True)`. The first one is the learning curve."""
    found = [drawn(progress_line(session), lambda: contents.learning(session, None, session.others))]
    views = [view for view in contents.VIEWS if view.has_data(session)]
    found += [drawn(view.text, partial(view.draw, session, None)) for view in views]
    write = [lambda: as_markdown(contents.health(session)), lambda: contents.journal_markdown(session)]
    return [bundle for bundle in (*found, *map(_written, write)) if bundle is not None]


def drawn(text: str, draw: Callable[[], Figure | None]) -> dict[str, Any] | None:
    """Return a picture for `display(..., raw=True)`, or the error as text; None if there is nothing to draw yet."""
    try:
        figure = draw()
        return None if figure is None else as_bundle(to_small_png(figure), text)
    except Exception as error:  # the other pictures are still drawn
        return {"text/plain": f"{text}: cannot be drawn: {type(error).__name__}: {error}"}


def _written(write: Callable[[], str]) -> dict[str, Any]:
    try:
        text = write()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    return {"text/markdown": text, "text/plain": text}


def as_bundle(png: bytes, text: str) -> dict[str, Any]:
    """Return a picture for `display(..., raw=True)`; `text` is for frontends without pictures."""
    return {"image/png": base64.b64encode(png).decode("ascii"), "text/plain": text}


def progress_line(session: Session) -> str:
    """Format the progress: "20,480 of 100,000 steps, return 87 ± 40, 24,012 steps per second"."""
    trainer, last = session.trainer, session.records.last
    parts = [f"{trainer.state.global_step:,} of {trainer.state.total_timesteps:,} steps"]
    mean = last("episode/return_mean")
    if mean == mean:
        parts.append(f"return {number(mean, digits=3)} ± {number(last('episode/return_std'))}")
    speed = last("time/steps_per_second")
    if speed == speed:
        parts.append(f"{speed:,.0f} steps per second")
    if trainer.inexact is not None:
        parts.append("exact resume: no")
    return ", ".join(parts)


def closing_line(session: Session) -> str:
    """Format how training ended."""
    if session.error is not None:
        error = session.error
        return f"failed at {progress_line(session)}: {type(error).__name__}: {error}"
    if session.trainer.finished:
        return f"done: {progress_line(session)}"
    return f"stopped at {progress_line(session)}; launch(session.trainer) continues from here"
