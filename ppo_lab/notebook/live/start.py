"""Launch training in a notebook: in the background with a dashboard, in the foreground when headless."""

from __future__ import annotations

import os
from typing import Any

from IPython.core.getipython import get_ipython

from ppo_lab.notebook.live.report import announce
from ppo_lab.notebook.live.session import Session
from ppo_lab.notebook.live.static import Lines
from ppo_lab.training.trainer import Trainer

_current: Session | None = None  # the one session of this process


def launch(trainer: Trainer) -> Session:
    """Train, and show the progress.

    Interactive: a dashboard appears, training runs in a background thread, and the next cells can be run. Headless
    (papermill, nbval, nbconvert, a plain script): it blocks, prints a progress line now and then, and leaves the same
    pictures. The environment variable PPO_LAB_UI=0 or 1 overrides the detection.

    `session.dashboard()` shows a running session again, e.g. after the page was reloaded.

    There is one session at a time: launching stops the previous one at its next update. Launching the same trainer
    again continues where it stopped; for one that was forked, the fork continues. What training raises, it raises here
    or shows under this cell, and in `Session.wait`.
    """
    global _current
    before = _current
    if before is not None:
        before.stop()
        if before.succeeds(trainer):
            trainer = before.trainer
        else:
            before = None
    announce(trainer)
    if before is None:
        exact = None if trainer.inexact is None else f"exact resume: no, {trainer.inexact}"
        print(*filter(None, (trainer.memory_plan, trainer.engine_line, trainer.thread_choice, exact)), sep="\n")
    session = Session(trainer, before)
    if ui_attached():
        from ppo_lab.notebook.live.dashboard import Dashboard  # imports ipywidgets, which headless runs do not need

        view = Dashboard(session)
        _current = session
        session.train_in_background(view)
    else:
        _current = session
        session.train_here(Lines())
    return session


def ui_attached() -> bool:
    """Return whether this cell runs interactively. Call it from the cell, on its thread."""
    forced = os.environ.get("PPO_LAB_UI")
    if forced in ("0", "1"):
        return forced == "1"
    shell: Any = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return False
    # the only reliable sign: papermill, nbconvert and nbval cannot answer input(). Not JPY_SESSION_NAME: a papermill
    # that was started from a notebook inherits it.
    return bool(shell.get_parent().get("content", {}).get("allow_stdin"))
