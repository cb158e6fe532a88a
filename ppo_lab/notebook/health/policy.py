"""Rules about the policy: how far it goes in one update, and how much it still tries."""

from __future__ import annotations

import numpy as np

from ppo_lab.notebook.health.signals import PATIENCE, SLOW, WIDTH, Signals, Verdict, early, since
from ppo_lab.notebook.plots.canvas import number

KL_HIGH, KL_TOO_HIGH = 0.02, 0.05  # implementations aim at 0.01 to 0.02; the presets stay below 0.02
KL_JUMP = 0.5  # ten times that, in one update: what the rollout says no longer applies to such a policy
CLIPPED, CLIPPED_OFTEN = 0.2, 0.3  # that share of the data has no gradient left; healthy is 0.05 to 0.2
DECIDED = 0.05  # of log(n): of two actions the other one is taken in 0.6 % of the steps
NARROW, WIDE = 0.05, 2.0  # std of a continuous action whose range is -1..1: next to no noise; nothing but noise
UNDECIDED = 0.8  # of log(n): of two actions the better one is taken in 76 % of the steps at most
STILL = 1e-5  # nats; healthy updates are at 1e-4 to 1e-2 until their learning rate runs out
NO_RATE = 1e-6  # Adam moves a weight by about the rate in a step; weights are about 0.1


def policy_leaps(s: Signals) -> Verdict | None:
    """Check for a KL divergence over its bound in most updates."""
    kl, goal, clip = s.smooth("update/approx_kl"), s.ppo.target_kl, s.in_force("clip_coef")
    steered = s.ppo.learning_rate_schedule == "adaptive"
    high, too_high = (KL_HIGH, KL_TOO_HIGH) if goal is None else (1.5 * goal, 3.0 * goal)
    if steered:  # up to twice the KL that was asked for the rate stays where it is
        high, too_high = max(high, 2.0 * s.ppo.desired_kl), max(too_high, 4.0 * s.ppo.desired_kl)
    for severity, bound in (("warning", too_high), ("note", high)):
        row = since(kl > bound)
        if row is not None:
            aim = "it should stay below" if goal is None else f"`target_kl` is {number(goal)}, the bound"
            return Verdict(
                severity,
                early(row),
                f"One update moves the policy by a KL of {number(s.typical('update/approx_kl', row))}; "
                f"{aim} {number(bound)}.",
                (
                    f"lower `ppo.desired_kl` ({number(s.ppo.desired_kl)} now), then `ppo.update_epochs`. "
                    if steered
                    else "lower `ppo.learning_rate` (halve it), then `ppo.update_epochs`; or set `ppo.target_kl` to "
                    "0.02. "
                )
                + (f"`ppo.clip_coef` is {number(clip)}; 0.2 is usual." if clip > 0.4 else ""),
            )
    return None


def policy_jumped(s: Signals) -> Verdict | None:
    """Check for an update (or a few) with an enormous KL, if it did harm or just happened."""
    kl = np.nan_to_num(s.raw("update/approx_kl"))
    if len(s) < 3 or not (kl > KL_JUMP).any() or policy_leaps(s) is not None:
        return None
    rows = np.flatnonzero(kl > KL_JUMP)
    before = s.best[rows[-1]]
    harm = bool(s.returns[-1] < before - s.margin)
    if not harm and rows[-1] < len(s) - SLOW:
        return None
    which = "A single update" if len(rows) == 1 else f"{len(rows)} updates"
    size = number(kl.max()) if len(rows) == 1 else f"up to {number(kl.max())}"
    outcome = f", and the return has not come back to the {number(before, 3)} it had" if harm else ""
    return Verdict(
        "warning" if harm else "note",
        int(rows[0]),
        f"{which} moved the policy by a KL of {size}, where {number(KL_TOO_HIGH)} is much{outcome}.",
        "go back to a checkpoint before that step and lower `ppo.learning_rate`, `ppo.update_epochs` or "
        "`ppo.clip_coef` there; `ppo.target_kl` ends an update before it goes that far.",
    )


def clipped_often(s: Signals) -> Verdict | None:
    """Check for too many samples whose ratio has left the clip range."""
    for severity, bound in (("warning", CLIPPED_OFTEN), ("note", CLIPPED)):
        row = since(s.smooth("update/clip_fraction") > bound)
        if row is not None:
            short = s.typical("update/approx_kl", row) < 0.1 * KL_HIGH
            slack = "the policy hardly moves, so the leash is too short: raise `ppo.clip_coef` (0.2 is usual)."
            tight = "lower `ppo.learning_rate`, or `ppo.update_epochs`: later passes find little left to learn from."
            share = s.typical("update/clip_fraction", row)
            return Verdict(
                severity,
                early(row),
                f"{share:.0%} of the samples are past the clip range and teach nothing; healthy is below {bound:.0%}.",
                slack if short else tight,
            )
    return None


def entropy_collapsed(s: Signals) -> Verdict | None:
    """Check whether the policy has stopped exploring."""
    if s.spread is None:
        return None
    row = since(s.spread < (DECIDED if s.num_actions else NARROW))
    if row is None:
        return None
    now = float(np.nanmedian(s.spread[row:]))
    measure = f"Entropy is {now:.1%} of pure chance" if s.num_actions else f"The action's std is {number(now)}"
    bound = f"{DECIDED:.0%}" if s.num_actions else number(NARROW)
    return Verdict(
        "note" if s.at_its_best else "warning",
        early(row),
        f"{measure}; below {bound} the policy tries nothing new, and what it does not try it cannot learn.",
        "raise `ppo.ent_coef` (0.01, then more), lower `ppo.learning_rate`; a policy that has collapsed stays so: "
        "go back to a checkpoint before. If the task is solved, this is as it should be.",
    )


def entropy_stuck(s: Signals) -> Verdict | None:
    """Check for a policy that changes but stays random."""
    if s.spread is None or len(s) < 3 * PATIENCE + SLOW:
        return None
    row = since(s.spread > (UNDECIDED if s.num_actions else WIDE), SLOW)
    if row is None or s.typical("update/approx_kl", len(s) - SLOW) < STILL:
        return None
    window = s.spread[-max(SLOW, len(s) // 2) :]  # the last half
    first, second = np.nanmedian(window[: len(window) // 2]), np.nanmedian(window[len(window) // 2 :])
    if first - second > 0.02 * first:  # it falls
        return None
    measure = f"Entropy is {second:.0%} of pure chance" if s.num_actions else f"The action's std is {number(second)}"
    bound = f"{UNDECIDED:.0%}" if s.num_actions else f"{number(WIDE)} (the range is -1 to 1)"
    bonus = s.in_force("ent_coef")
    dial = "ppo.ent_coef" if s.ppo.target_entropy is None else "ppo.target_entropy"
    usual = f"{number(bonus)} now; 0 to 0.02 is usual" if s.ppo.target_entropy is None else "what `ent_coef` follows"
    paid = f"lower `{dial}` ({usual}): the bonus outweighs the reward."
    noise = "the reward may not depend on the actions, or be lost in noise: larger rollouts (`ppo.num_steps`), "
    return Verdict(
        "note" if s.improving else "warning",
        early(row),
        f"{measure} and does not fall; above {bound} the policy has next to no preference.",
        paid if bonus > 0 else noise + "a higher `ppo.learning_rate`, and a look at the reward.",
    )


def policy_still(s: Signals) -> Verdict | None:
    """Check for a policy that does not change, though its learning rate and its entropy would let it."""
    row = since(s.smooth("update/approx_kl") < STILL, SLOW)
    rate = s.smooth("update/learning_rate")
    running_out = rate[-1] < 0.1 * np.fmax.reduce(rate) if row is not None else False
    if row is None or running_out or learning_rate_zero(s) or entropy_collapsed(s) or early_stop_always(s):
        return None
    return Verdict(
        "note" if s.at_its_best else "warning",
        early(row),
        f"An update moves the policy by a KL of {number(s.typical('update/approx_kl', row), 1)}, next to nothing; "
        f"where something is learned it is above {number(10 * STILL, 1)}.",
        f"raise `ppo.learning_rate` ({number(rate[-1])} now) tenfold; look whether `ppo.max_grad_norm` "
        f"({number(s.ppo.max_grad_norm)}) or `ppo.clip_coef` is tiny, and whether the reward ever differs.",
    )


def learning_rate_zero(s: Signals) -> Verdict | None:
    """Check for a learning rate so small that weights stay where they are."""
    for key in ("learning_rate", "critic_learning_rate"):
        rate = s.smooth(f"update/{key}")
        steered = s.ppo.learning_rate_schedule == "adaptive"
        row = since(rate <= NO_RATE if steered else rate < NO_RATE)  # adaptive goes no lower
        if row is None or rate[-1] > rate[WIDTH - 1]:  # warming up
            continue
        planned = s.ppo.learning_rate_schedule != "constant" and not steered and np.fmax.reduce(rate) > NO_RATE
        setting = "ppo.learning_rate" if s.ppo.critic_learning_rate is None else f"ppo.{key}"
        advice = f"raise `{setting}`: 3e-4 to 3e-3 is usual."
        if steered:
            advice = (
                "even so the policy moves further than `ppo.desired_kl`: lower `ppo.update_epochs`, or raise "
                f"`ppo.desired_kl` ({number(s.ppo.desired_kl)} now; 0.01 is usual)."
            )
        later = "it has fallen there, by its schedule or by hand: raise `ppo.learning_rate_end`."
        return Verdict(
            "note" if planned else "warning",
            early(row),
            f"The {key.replace('_', ' ')} is {number(rate[-1], 1)}; below {number(NO_RATE, 1)} nothing is learned.",
            later if planned else advice,
        )
    return None


def early_stop_always(s: Signals) -> Verdict | None:
    """Check whether target_kl prevents most of the gradient steps."""
    planned = s.planned_steps
    if s.ppo.target_kl is None:
        return None
    share = s.smooth("update/gradient_steps") / planned  # (U,)
    for severity, bound in (("warning", 0.25), ("note", 0.5)):
        row = since(share < bound, 2 * PATIENCE)
        if row is not None:
            taken = s.typical("update/gradient_steps", row)
            return Verdict(
                severity,
                early(row),
                f"`target_kl` ends updates after {taken:.0f} of {planned} gradient steps; healthy is over {bound:.0%}.",
                f"raise `ppo.target_kl` ({number(s.ppo.target_kl)} now; 0.01 to 0.03 is usual), or lower "
                "`ppo.learning_rate` so that all steps together go that far.",
            )
    return None
