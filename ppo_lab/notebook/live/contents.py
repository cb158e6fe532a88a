"""Contents of each dashboard panel: the same for the live widgets and for the static pictures that replace them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from matplotlib.figure import Figure

from ppo_lab.models.distributions import BetaHead, GaussianHead, JointHead, SquashedHead
from ppo_lab.notebook.health import Finding, examine
from ppo_lab.notebook.plots.canvas import Columns
from ppo_lab.notebook.plots.dials import dials_figure
from ppo_lab.notebook.plots.inside import inside_figure
from ppo_lab.notebook.plots.learning import learning_figure
from ppo_lab.notebook.plots.numbers import numbers_figure
from ppo_lab.ppo.schedules import settings_at
from ppo_lab.training.added_metrics import LAB_METRICS

if TYPE_CHECKING:
    from ppo_lab.notebook.live.session import Session
    from ppo_lab.training.trainer import Trainer

JOURNAL = ("env step", "update", "setting", "from", "to", "by")
CELL = "padding: 2px 12px 2px 0; text-align: left"


def learning(session: Session, figure: Figure | None = None, others: Mapping[str, Columns] | None = None) -> Figure:
    """Draw episode return and length; `others` are runs to compare with.

    figure: an earlier one to redraw, here and below.
    """
    trainer = session.trainer
    return learning_figure(session.history, trainer.changes, others, trainer.state.total_timesteps, figure)


def dials(session: Session, figure: Figure | None = None) -> Figure:
    """Draw the diagnostics of every update."""
    trainer, ppo = session.trainer, session.trainer.config.ppo
    norm = last_set(session, "max_grad_norm")
    goal = ppo.desired_kl if ppo.learning_rate_schedule == "adaptive" else None
    total, choices = trainer.state.total_timesteps, entropy_scale(trainer).num_actions
    return dials_figure(session.history, total, choices, ppo.target_kl, norm, figure, goal)


def other_names(session: Session) -> list[str]:
    """Return the names of metrics that are not built in: from info, from the environments, from `trainer.record`."""
    return sorted(session.history.keys() - LAB_METRICS - {"update", "global_step"})


def numbers(session: Session, figure: Figure | None = None) -> Figure:
    """Draw the metrics of `other_names`, each over env steps."""
    return numbers_figure(session.history, other_names(session), session.trainer.state.total_timesteps, figure)


def inside(session: Session, figure: Figure | None = None) -> Figure | None:
    """Draw the last update; None before the first."""
    last = session.last_update()
    return None if last is None else inside_figure(last, figure)


class View(NamedTuple):
    """A picture of a session: a tab of the live dashboard, and a static picture at the end."""

    title: str  # of its tab
    text: str  # what frontends without pictures show
    draw: Callable[
        [Session, Figure | None], Figure | None
    ]  # the figure may be an earlier one to redraw; None: nothing yet
    has_data: Callable[[Session], bool] = lambda session: True  # whether it is among the static pictures


VIEWS = (  # after the learning curve; in the order of the tabs
    View("Dials", "KL, clip fraction, entropy, critic, gradients, losses", dials),
    View("Inside the update", "the last update", inside),
    View("Numbers", "metrics from info, environments and trainer.record", numbers, lambda s: bool(other_names(s))),
)


def health(session: Session) -> list[Finding]:
    """Return the findings of the health checks."""
    trainer, state, rollout = session.trainer, session.trainer.state, session.trainer.rollout
    ppo = settings_at(trainer.config.ppo, state.live, state.global_step, state.total_timesteps)
    chunks = sum(rollout.reward.shape[1] for _ in rollout.chunks()) if rollout.memory else None
    return examine(session.history, ppo, *entropy_scale(trainer), chunks=chunks)


def journal_rows(session: Session) -> list[tuple[str, ...]]:
    """Return the live changes as text, the newest first; columns as in `JOURNAL`."""
    return [
        (f"{change.global_step:,}", f"{change.update:,}", change.key, str(change.old), str(change.new), change.source)
        for change in reversed(session.trainer.changes)
    ]


def journal_html(session: Session) -> str:
    """Format the journal as an HTML table."""
    rows = journal_rows(session)
    if not rows:
        return "No setting has been changed yet."
    lines = ["".join(f'<td style="{CELL}">{escape(cell)}</td>' for cell in row) for row in rows]
    cells = "".join(f"<tr>{line}</tr>" for line in lines)
    head = "".join(f'<th style="{CELL}">{name}</th>' for name in JOURNAL)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"


def journal_markdown(session: Session) -> str:
    """Format the journal as a Markdown table."""
    rows = journal_rows(session)
    if not rows:
        return "**Journal.** No setting was changed."
    lines = [f"| {' | '.join(row)} |" for row in (JOURNAL, ("---",) * len(JOURNAL), *rows)]
    return "**Journal**\n\n" + "\n".join(lines)


def last_set(session: Session, key: str) -> Any:
    """Return a setting as the last live change left it, else as configured: the position of its slider."""
    live = session.trainer.state.live
    return live[key].value if key in live else getattr(session.trainer.config.ppo, key)


class EntropyScale(NamedTuple):
    """The reference for a policy's entropy; see `health.examine`."""

    num_actions: int | None = None
    action_dims: int | None = None
    entropy_shift: float = 0.0


def entropy_scale(trainer: Trainer) -> EntropyScale:
    """Return the number of distinct actions (discrete), or a Box's dimensions and its entropy shift from [-1, 1].

    No scale where action masks vary the number of choices, or where discrete and continuous parts are mixed: their
    entropies have no common measure.
    """
    model, head = trainer.state.model, trainer.state.model.actor_head
    if model.masked or isinstance(head, JointHead):
        known = not model.masked and isinstance(head, JointHead) and head.action_dtype == torch.int64
        return EntropyScale(math.prod(head.mask_layout)) if known else EntropyScale(action_dims=0)
    if not isinstance(head, GaussianHead | SquashedHead | BetaHead):
        return EntropyScale(math.prod(head.mask_layout))
    box, own_units = head.box, not isinstance(head, GaussianHead) or not head.rescale
    shift = float(((box.high - box.low) / 2).log().sum()) if own_units and box.bounded else 0.0
    return EntropyScale(None, box.size, shift)
