"""What needs no widgets: lines of text on the way, and a picture and a line that stay when training is over."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Any

from IPython.core.getipython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from ppo_lab.notebook.plots import dashboard_figure, number, to_png

if TYPE_CHECKING:
    from ppo_lab.notebook.session import Session


class Lines:
    """The view of a session that nobody watches."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds  # between two lines
        self._last = time.monotonic()

    def refresh(self, session: Session, force: bool = False) -> None:
        """A line now and then."""
        if force or time.monotonic() - self._last >= self.seconds:
            self._last = time.monotonic()
            print(progress_line(session), flush=True)

    def finish(self, session: Session) -> None:
        """The picture and the last line."""
        if get_ipython() is not None:
            display(as_bundle(to_png(figure_of(session)), progress_line(session)), raw=True)
        print(closing_line(session), flush=True)


def figure_of(session: Session, figure: Figure | None = None) -> Figure:
    """Learning curve and dials of a session; `figure` is an earlier one to draw anew."""
    trainer = session.trainer
    num_actions = getattr(trainer.envs.action_space, "n", None)  # of a Discrete space
    return dashboard_figure(session.history, trainer.state.total_timesteps, num_actions, figure)


def as_bundle(png: bytes, text: str) -> dict[str, Any]:
    """A picture as `display(..., raw=True)` takes it; `text` is for where there are no pictures."""
    return {"image/png": base64.b64encode(png).decode("ascii"), "text/plain": text}


def progress_line(session: Session) -> str:
    """ "20,480 of 100,000 steps, return 87 ± 40, 24,012 steps per second"."""
    trainer, last = session.trainer, session.records.last
    parts = [f"{trainer.state.global_step:,} of {trainer.state.total_timesteps:,} steps"]
    mean = last("episode/return_mean")
    if mean == mean:
        parts.append(f"return {number(mean, digits=3)} ± {number(last('episode/return_std'))}")
    speed = last("time/steps_per_second")
    if speed == speed:
        parts.append(f"{speed:,.0f} steps per second")
    return ", ".join(parts)


def closing_line(session: Session) -> str:
    """How it ended."""
    if session.error is not None:
        return f"failed at {progress_line(session)}"
    if session.trainer.finished:
        return f"done: {progress_line(session)}"
    return f"stopped at {progress_line(session)}; launch(trainer) goes on from here"
