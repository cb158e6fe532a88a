"""What each panel shows of a session: the same for the widget that is watched and for the picture that stays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from ppo_lab.notebook.health import Finding, examine
from ppo_lab.notebook.plots.canvas import Columns
from ppo_lab.notebook.plots.dials import dials_figure
from ppo_lab.notebook.plots.inside import inside_figure
from ppo_lab.notebook.plots.learning import learning_figure
from ppo_lab.schedules import settings_at

if TYPE_CHECKING:
    from ppo_lab.notebook.session import Session

JOURNAL = ("env step", "update", "setting", "from", "to", "by")
CELL = "padding: 2px 12px 2px 0; text-align: left"


def learning(session: Session, figure: Figure | None = None, others: Mapping[str, Columns] | None = None) -> Figure:
    """Return and length; `others` are runs to see beside it.

    figure: an earlier one to draw anew, here and below.
    """
    trainer = session.trainer
    return learning_figure(session.history, trainer.changes, others, trainer.state.total_timesteps, figure)


def dials(session: Session, figure: Figure | None = None) -> Figure:
    """The diagnostics of every update."""
    trainer, target_kl = session.trainer, session.trainer.config.ppo.target_kl
    norm = last_set(session, "max_grad_norm")
    return dials_figure(session.history, trainer.state.total_timesteps, num_actions(session), target_kl, norm, figure)


def inside(session: Session, figure: Figure | None = None) -> Figure | None:
    """The last update; None before the first."""
    last = session.last_update()
    return None if last is None else inside_figure(last, figure)


def health(session: Session) -> list[Finding]:
    """What looks wrong."""
    trainer, state = session.trainer, session.trainer.state
    ppo = settings_at(trainer.config.ppo, state.live, state.global_step, state.total_timesteps)
    choices = num_actions(session)
    dimensions = math.prod(trainer.envs.action_space.shape or ()) if choices is None else None
    return examine(session.history, ppo, choices, action_dims=dimensions)


def journal_rows(session: Session) -> list[tuple[str, ...]]:
    """The live changes, the last one first, as words."""
    return [
        (f"{change.global_step:,}", f"{change.update:,}", change.key, str(change.old), str(change.new), change.source)
        for change in reversed(session.trainer.changes)
    ]


def journal_html(session: Session) -> str:
    """The journal as a table."""
    rows = journal_rows(session)
    if not rows:
        return "No dial was turned yet."
    lines = ["".join(f'<td style="{CELL}">{escape(cell)}</td>' for cell in row) for row in rows]
    cells = "".join(f"<tr>{line}</tr>" for line in lines)
    head = "".join(f'<th style="{CELL}">{name}</th>' for name in JOURNAL)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"


def journal_markdown(session: Session) -> str:
    """The journal as a table."""
    rows = journal_rows(session)
    if not rows:
        return "**Journal.** No dial was turned."
    lines = [f"| {' | '.join(row)} |" for row in (JOURNAL, ("---",) * len(JOURNAL), *rows)]
    return "**Journal**\n\n" + "\n".join(lines)


def last_set(session: Session, key: str) -> Any:
    """A setting as the last live change left it, or as configured: where its slider stands."""
    live = session.trainer.state.live
    return live[key].value if key in live else getattr(session.trainer.config.ppo, key)


def num_actions(session: Session) -> int | None:
    """Of a discrete action space; None for others."""
    number: Any = getattr(session.trainer.envs.action_space, "n", None)  # of a MultiBinary space it can be a shape
    return int(number) if hasattr(number, "__index__") else None
