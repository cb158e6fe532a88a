"""Health rules about the policy: how far it moves in an update, and how much it explores."""

from __future__ import annotations

import numpy as np

from ppo_lab.notebook.health.signals import PATIENCE, SLOW, WIDTH, Signals, Verdict, early, since
from ppo_lab.notebook.plots.canvas import number

KL_HIGH, KL_TOO_HIGH = 0.02, 0.05  # implementations aim at 0.01 to 0.02; the presets stay below 0.02
KL_JUMP = 0.5  # ten times that in one update: the data of the rollout says nothing about such a policy
CLIPPED, CLIPPED_OFTEN = 0.2, 0.3  # fraction of samples outside the clip range; healthy is 0.05 to 0.2
DECIDED = 0.05  # of log(n): with two actions, the less likely one is taken in 0.6 % of the steps
NARROW, WIDE = 0.05, 2.0  # std of a continuous action with range -1..1: almost no noise; only noise
UNDECIDED = 0.8  # of log(n): with two actions, the more likely one is taken in at most 76 % of the steps
STILL = 1e-5  # nats of KL; healthy updates are at 1e-4 to 1e-2 until the learning rate has decayed
NO_RATE = 1e-6  # Adam moves a weight by about the learning rate per step; weights are about 0.1


def policy_leaps(s: Signals) -> Verdict | None:
    """Check for a KL divergence above its threshold in most updates."""
    kl, goal, clip = s.smooth("update/approx_kl"), s.ppo.target_kl, s.in_force("clip_coef")
    steered = s.ppo.learning_rate_schedule == "adaptive"
    high, too_high = (KL_HIGH, KL_TOO_HIGH) if goal is None else (1.5 * goal, 3.0 * goal)
    if steered:  # the adaptive schedule accepts up to twice desired_kl
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
    """Check for one update (or a few) with a very large KL, if it did harm or is recent."""
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
    outcome = f", and the return is still below the {number(before, 3)} it had" if harm else ""
    return Verdict(
        "warning" if harm else "note",
        int(rows[0]),
        f"{which} moved the policy by a KL of {size}; {number(KL_TOO_HIGH)} is already too much{outcome}.",
        "go back to a checkpoint before that step and continue with a lower `ppo.learning_rate`, `ppo.update_epochs` "
        "or `ppo.clip_coef`; `ppo.target_kl` stops an update before it goes that far.",
    )


def clipped_often(s: Signals) -> Verdict | None:
    """Check for too many samples with a ratio outside the clip range."""
    for severity, bound in (("warning", CLIPPED_OFTEN), ("note", CLIPPED)):
        row = since(s.smooth("update/clip_fraction") > bound)
        if row is not None:
            short = s.typical("update/approx_kl", row) < 0.1 * KL_HIGH
            slack = "the policy hardly moves, so the clip range is too small: raise `ppo.clip_coef` (0.2 is usual)."
            tight = "lower `ppo.learning_rate`, or `ppo.update_epochs`: later passes find little left to learn from."
            share = s.typical("update/clip_fraction", row)
            return Verdict(
                severity,
                early(row),
                f"{share:.0%} of the samples are outside the clip range; healthy is below {bound:.0%}.",
                slack if short else tight,
            )
    return None


def entropy_collapsed(s: Signals) -> Verdict | None:
    """Check for a policy that no longer explores: its entropy, or its std, is close to 0."""
    if s.spread is None:
        return None
    row = since(s.spread < (DECIDED if s.num_actions else NARROW))
    if row is None:
        return None
    now = float(np.nanmedian(s.spread[row:]))
    measure = f"Entropy is {now:.1%} of the maximum" if s.num_actions else f"The action's std is {number(now)}"
    bound = f"{DECIDED:.0%}" if s.num_actions else number(NARROW)
    return Verdict(
        "note" if s.at_its_best else "warning",
        early(row),
        f"{measure}; below {bound} the policy explores too little, and cannot learn what it does not try.",
        "raise `ppo.ent_coef` (0.01, then more), lower `ppo.learning_rate`; a collapsed policy does not recover, so go "
        "back to an earlier checkpoint. If the task is solved, nothing is wrong.",
    )


def entropy_stuck(s: Signals) -> Verdict | None:
    """Check for a policy that changes but stays almost random."""
    if s.spread is None or len(s) < 3 * PATIENCE + SLOW:
        return None
    row = since(s.spread > (UNDECIDED if s.num_actions else WIDE), SLOW)
    if row is None or s.typical("update/approx_kl", len(s) - SLOW) < STILL:
        return None
    window = s.spread[-max(SLOW, len(s) // 2) :]  # the last half
    first, second = np.nanmedian(window[: len(window) // 2]), np.nanmedian(window[len(window) // 2 :])
    if first - second > 0.02 * first:  # it falls
        return None
    measure = f"Entropy is {second:.0%} of the maximum" if s.num_actions else f"The action's std is {number(second)}"
    bound = f"{UNDECIDED:.0%}" if s.num_actions else f"{number(WIDE)} (the range is -1 to 1)"
    bonus = s.in_force("ent_coef")
    dial = "ppo.ent_coef" if s.ppo.target_entropy is None else "ppo.target_entropy"
    usual = f"{number(bonus)} now; 0 to 0.02 is usual" if s.ppo.target_entropy is None else "`ent_coef` follows it"
    paid = f"lower `{dial}` ({usual}): the bonus outweighs the reward."
    noise = "the reward may not depend on the actions, or be too noisy. Use larger rollouts (`ppo.num_steps`) and "
    return Verdict(
        "note" if s.improving else "warning",
        early(row),
        f"{measure} and does not fall; above {bound} the policy has almost no preference.",
        paid if bonus > 0 else noise + "a higher `ppo.learning_rate`, and check the reward.",
    )


def policy_still(s: Signals) -> Verdict | None:
    """Check for a policy that hardly changes although learning rate, entropy and early stops do not explain it."""
    row = since(s.smooth("update/approx_kl") < STILL, SLOW)
    rate = s.smooth("update/learning_rate")
    running_out = rate[-1] < 0.1 * np.fmax.reduce(rate) if row is not None else False
    if row is None or running_out or learning_rate_zero(s) or entropy_collapsed(s) or early_stop_always(s):
        return None
    return Verdict(
        "note" if s.at_its_best else "warning",
        early(row),
        f"An update moves the policy by a KL of {number(s.typical('update/approx_kl', row), 1)}, almost nothing; "
        f"in a run that learns it is above {number(10 * STILL, 1)}.",
        f"raise `ppo.learning_rate` ({number(rate[-1])} now) tenfold; check whether `ppo.max_grad_norm` "
        f"({number(s.ppo.max_grad_norm)}) or `ppo.clip_coef` is tiny, and whether the reward ever changes.",
    )


def learning_rate_zero(s: Signals) -> Verdict | None:
    """Check for a learning rate so small that the weights do not change."""
    for key in ("learning_rate", "critic_learning_rate"):
        rate = s.smooth(f"update/{key}")
        steered = s.ppo.learning_rate_schedule == "adaptive"
        row = since(rate <= NO_RATE if steered else rate < NO_RATE)  # the lower limit of the adaptive schedule
        if row is None or rate[-1] > rate[WIDTH - 1]:  # warming up
            continue
        planned = s.ppo.learning_rate_schedule != "constant" and not steered and np.fmax.reduce(rate) > NO_RATE
        setting = "ppo.learning_rate" if s.ppo.critic_learning_rate is None else f"ppo.{key}"
        advice = f"raise `{setting}`: 3e-4 to 3e-3 is usual."
        if steered:
            advice = (
                "even at this rate the policy moves further than `ppo.desired_kl`: lower `ppo.update_epochs`, or raise "
                f"`ppo.desired_kl` ({number(s.ppo.desired_kl)} now; 0.01 is usual)."
            )
        later = "it was lowered by the schedule or by hand: raise `ppo.learning_rate_end`."
        return Verdict(
            "note" if planned else "warning",
            early(row),
            f"The {key.replace('_', ' ')} is {number(rate[-1], 1)}; below {number(NO_RATE, 1)} nothing is learned.",
            later if planned else advice,
        )
    return None


def early_stop_always(s: Signals) -> Verdict | None:
    """Check whether target_kl stops updates before most of their gradient steps."""
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
                "`ppo.learning_rate` so that all steps together stay within it.",
            )
    return None
