"""Rules about the critic and the gradients."""

from __future__ import annotations

import numpy as np

from ppo_lab.notebook.health.signals import PATIENCE, SLOW, Signals, Verdict, early, since
from ppo_lab.notebook.plots.canvas import number

YOUNG = 10  # updates in which no critic can know anything yet
WORSE = -0.1  # explained variance; 0 is "always the mean", and it wavers around that
GUESSES, GUESSES_BADLY = 0.5, 0.3  # above 0.5 advantages say more about the action than about the critic
ROUNDING = -1e6  # an explained variance below is 0 / 0 in float32: all returns were equal
CLIPPED_MUCH, CLIPPED_AWAY = 100.0, 1000.0  # times max_grad_norm; the presets are at 1 to 60, and Adam evens it out
CALLED_OFF = 0.5  # of an update's gradient steps; the scale of float16 gradients settles within a few
EXPLODED = 10.0  # times the largest value loss of the first updates


def critic_worse_than_mean(s: Signals) -> Verdict | None:
    """Check for explained variance below 0: an average would predict better."""
    row = _critic_below(s, WORSE, 2 * PATIENCE)
    if row is None or nothing_to_predict(s):
        return None
    return Verdict(
        "note" if s.improving else "warning",
        early(row),
        f"Explained variance is {number(s.typical('update/explained_variance', row))}: the critic is worse than always "
        "saying the mean return, which is 0.",
        "raise `ppo.update_epochs` or `ppo.vf_coef` so that the critic keeps up with the policy; lower "
        "`ppo.critic_learning_rate` if it is high; for large rewards `ppo.normalize_reward`.",
    )


def critic_guesses(s: Signals) -> Verdict | None:
    """Check for explained variance that stays low although there is something to explain."""
    row = _critic_below(s, GUESSES, SLOW)
    if row is None or nothing_to_predict(s) or critic_worse_than_mean(s):
        return None
    value = s.typical("update/explained_variance", row)
    weight = f"`ppo.vf_coef` ({number(s.ppo.vf_coef)} now; 0.5 is usual), " if s.ppo.vf_coef < 0.5 else ""
    return Verdict(
        "note" if s.improving or value > GUESSES_BADLY else "warning",
        early(row),
        f"Explained variance is {number(value)}: the critic foresees little of what the returns will be; "
        f"it should be above {number(GUESSES)}.",
        f"raise {weight}`ppo.critic_learning_rate` or `ppo.update_epochs`; for large rewards `ppo.normalize_reward`; "
        "else the critic may not see what matters.",
    )


def nothing_to_predict(s: Signals) -> Verdict | None:
    """Check whether all returns that the critic learns are one number, though episodes differ."""
    equal = ~(s.raw("update/explained_variance") > ROUNDING) & np.isfinite(s.raw("loss/value"))
    row = since(equal & (s.raw("episode/return_std") > 0), 2 * PATIENCE)
    if row is None:
        return None
    return Verdict(
        "warning",
        row,
        "All the returns that the critic learns are the same number, though some episodes score more than others.",
        f"raise `ppo.gamma` ({number(s.ppo.gamma, 3)} now; 0.95 to 0.999 is usual): so short-sighted, one action "
        "looks as good as another.",
    )


def value_loss_exploding(s: Signals) -> Verdict | None:
    """Check for a critic's error that grows beyond all earlier ones while it predicts nothing."""
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
    """Check whether every gradient is clipped to a small part of itself."""
    norm = s.smooth("update/grad_norm") / s.ppo.max_grad_norm  # (U,)
    for severity, bound in (("warning", CLIPPED_AWAY), ("note", CLIPPED_MUCH)):
        row = since(norm > bound, SLOW)
        if row is not None:
            times = s.typical("update/grad_norm", row) / s.ppo.max_grad_norm
            return Verdict(
                severity,
                early(row),
                f"The gradient is {number(times)} times as long as `max_grad_norm` and cut down in every update; "
                f"above {bound:,.0f} times it slows learning.",
                f"raise `ppo.max_grad_norm` ({number(s.ppo.max_grad_norm)} now; 0.5 is usual); if the value loss is "
                "large too, `ppo.normalize_reward` is the better cure.",
            )
    return None


def steps_called_off(s: Signals) -> Verdict | None:
    """Check for float16 gradients that overflow mostly, so that steps are not taken."""
    share = s.smooth("update/skipped_steps") / s.smooth("update/gradient_steps")  # (U,)
    row = since(share > CALLED_OFF, 2 * PATIENCE)
    if row is None:
        return None
    off, steps = s.typical("update/skipped_steps", row), s.typical("update/gradient_steps", row)
    return Verdict(
        "warning",
        early(row),
        f"{off:.0f} of {steps:.0f} gradient steps of an update are called off, because numbers grow beyond float16; a "
        "few at the start of a run are usual.",
        "set `model.precision` to bfloat16 (or float32); else `ppo.normalize_reward` or `model.normalize_value`.",
    )


def _critic_below(s: Signals, bound: float, patience: int) -> int | None:
    """Return since when the explained variance is below a bound, though there is something to explain."""
    explained = s.smooth("update/explained_variance")
    grown = np.arange(len(s)) >= YOUNG
    return since((explained < bound) & s.to_predict & grown, patience)
