"""Health rules about the critic and the gradients."""

from __future__ import annotations

import numpy as np

from ppo_lab.notebook.health.signals import PATIENCE, SLOW, Signals, Verdict, early, since
from ppo_lab.notebook.plots.canvas import number

YOUNG = 10  # updates in which a critic cannot have learned anything yet
WORSE = -0.1  # explained variance; predicting the mean gives 0, and noise goes a little below that
GUESSES, GUESSES_BADLY = 0.5, 0.3  # explained variance; below 0.5 advantages are mostly errors of the critic
ROUNDING = -1e6  # an explained variance below this is 0 / 0 in float32: all returns were equal
CLIPPED_MUCH, CLIPPED_AWAY = 100.0, 1000.0  # times max_grad_norm; presets: 1 to 60. Adam compensates part of it
CALLED_OFF = 0.5  # of the gradient steps of an update; usually the float16 loss scale settles within a few
EXPLODED = 10.0  # times the largest value loss of the first YOUNG updates


def critic_worse_than_mean(s: Signals) -> Verdict | None:
    """Check for an explained variance below 0: predicting the mean return would be better."""
    row = _critic_below(s, WORSE, 2 * PATIENCE)
    if row is None or nothing_to_predict(s):
        return None
    return Verdict(
        "note" if s.improving else "warning",
        early(row),
        f"Explained variance is {number(s.typical('update/explained_variance', row))}: the critic predicts worse "
        "than the mean return would, which gives 0.",
        "raise `ppo.update_epochs` or `ppo.vf_coef` so that the critic keeps up with the policy; lower "
        "`ppo.critic_learning_rate` if it is high; for large rewards `ppo.normalize_reward`.",
    )


def critic_guesses(s: Signals) -> Verdict | None:
    """Check for an explained variance that stays low although the returns differ."""
    row = _critic_below(s, GUESSES, SLOW)
    if row is None or nothing_to_predict(s) or critic_worse_than_mean(s):
        return None
    value = s.typical("update/explained_variance", row)
    weight = f"`ppo.vf_coef` ({number(s.ppo.vf_coef)} now; 0.5 is usual), " if s.ppo.vf_coef < 0.5 else ""
    return Verdict(
        "note" if s.improving or value > GUESSES_BADLY else "warning",
        early(row),
        f"Explained variance is {number(value)}: the critic predicts the returns poorly; "
        f"it should be above {number(GUESSES)}.",
        f"raise {weight}`ppo.critic_learning_rate` or `ppo.update_epochs`; for large rewards `ppo.normalize_reward`; "
        "otherwise the observation may lack what the return depends on.",
    )


def nothing_to_predict(s: Signals) -> Verdict | None:
    """Check whether all targets of the critic are equal although the returns of episodes differ."""
    equal = ~(s.raw("update/explained_variance") > ROUNDING) & np.isfinite(s.raw("loss/value"))
    row = since(equal & (s.raw("episode/return_std") > 0), 2 * PATIENCE)
    if row is None:
        return None
    return Verdict(
        "warning",
        row,
        "All returns that the critic learns are equal, although the returns of episodes differ.",
        f"raise `ppo.gamma` ({number(s.ppo.gamma, 3)} now; 0.95 to 0.999 is usual): with so short a horizon all "
        "actions look equally good.",
    )


def value_loss_exploding(s: Signals) -> Verdict | None:
    """Check for a value loss far above that of the first updates while the critic predicts nothing."""
    loss = s.smooth("loss/value")
    known = s.raw("loss/value")[:YOUNG]
    if len(s) <= YOUNG or not np.isfinite(known).any():
        return None
    most = float(np.nanmax(known))
    row = since((loss > EXPLODED * most) & (s.smooth("update/explained_variance") < 0.0))
    if row is None:
        return None
    return Verdict(
        "warning",
        early(row),
        f"The value loss is {number(s.typical('loss/value', row))}, over {EXPLODED:.0f} times the {number(most)} of "
        "the first updates, and the critic predicts nothing.",
        "lower `ppo.critic_learning_rate` or `ppo.learning_rate`; turn on `ppo.normalize_reward`; "
        "look for rewards that grow without bound, or a `ppo.gamma` of 1 where episodes do not end.",
    )


def gradients_clipped(s: Signals) -> Verdict | None:
    """Check whether gradients are clipped to a small fraction of their norm in every update."""
    norm = s.smooth("update/grad_norm") / s.ppo.max_grad_norm  # (U,)
    for severity, bound in (("warning", CLIPPED_AWAY), ("note", CLIPPED_MUCH)):
        row = since(norm > bound, SLOW)
        if row is not None:
            times = s.typical("update/grad_norm", row) / s.ppo.max_grad_norm
            return Verdict(
                severity,
                early(row),
                f"The gradient norm is {number(times)} times `max_grad_norm`, so gradients are clipped in every "
                f"update; above {bound:,.0f} times it slows learning.",
                f"raise `ppo.max_grad_norm` ({number(s.ppo.max_grad_norm)} now; 0.5 is usual); if the value loss is "
                "large too, `ppo.normalize_reward` is the better fix.",
            )
    return None


def steps_called_off(s: Signals) -> Verdict | None:
    """Check whether most gradient steps are skipped because float16 gradients overflow."""
    share = s.smooth("update/skipped_steps") / s.smooth("update/gradient_steps")  # (U,)
    row = since(share > CALLED_OFF, 2 * PATIENCE)
    if row is None:
        return None
    off, steps = s.typical("update/skipped_steps", row), s.typical("update/gradient_steps", row)
    return Verdict(
        "warning",
        early(row),
        f"{off:.0f} of {steps:.0f} gradient steps of an update are skipped, because gradients overflow in float16; a "
        "few at the start of a run are usual.",
        "set `model.precision` to bfloat16 (or float32); otherwise try `ppo.normalize_reward` or "
        "`model.normalize_value`.",
    )


def _critic_below(s: Signals, bound: float, patience: int) -> int | None:
    """Return the row since which explained variance is below `bound` although the returns differ; None if it is not."""
    explained = s.smooth("update/explained_variance")
    grown = np.arange(len(s)) >= YOUNG
    return since((explained < bound) & s.to_predict & grown, patience)
