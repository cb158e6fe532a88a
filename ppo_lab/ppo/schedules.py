"""The value of every setting at a point of training: schedules, and what a person changed on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from ppo_lab.config import SCHEDULED, PPOConfig


class LiveChange(NamedTuple):
    """A setting that was changed while training ran."""

    value: float
    global_step: int  # env steps done when the change took effect


def scheduled(
    name: str, start: float, end: float, progress: float, milestones: Mapping[float, float] | None = None
) -> float:
    """Return the value of a schedule at `progress` in 0..1 (0 at the first update, below 1 at the last).

    constant    start
    linear      end + (start - end) * (1 - progress)
    cosine      end + (start - end) * (1 + cos(pi * progress)) / 2
    milestones  the value of the last milestone passed, `start` before the first
    """
    progress = min(max(progress, 0.0), 1.0)
    if name == "linear":
        return end + (start - end) * (1.0 - progress)
    if name == "cosine":
        return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))
    if name == "milestones":
        passed = [at for at in milestones or {} if at <= progress]
        return (milestones or {})[max(passed)] if passed else start
    return start


def settings_at(ppo: PPOConfig, live: Mapping[str, LiveChange], global_step: int, total: int) -> PPOConfig:
    """Return the settings of an update that begins at `global_step` of `total`, after schedules and live changes.

    A live change is the value from that moment on; a schedule continues from it to the same end in the time that is
    left (linear, cosine), or until the next milestone. Where a run is made longer, all of this is as if the new total
    had been known from the beginning: the value of a schedule can step back up.
    """
    progress = global_step / total
    values: dict[str, float | None] = {name: change.value for name, change in live.items()}
    for name in SCHEDULED:
        start, changed_at = live.get(name, LiveChange(getattr(ppo, name), 0))
        since = changed_at / total
        kind, end = getattr(ppo, f"{name}_schedule"), getattr(ppo, f"{name}_end")
        if kind == "milestones":
            later = {
                at: value for at, value in getattr(ppo, f"{name}_milestones").items() if at > since or since == 0.0
            }
            values[name] = scheduled(kind, start, end, progress, later)
        else:
            rest = (progress - since) / (1.0 - since) if since < 1.0 else 1.0  # of what was left then, this is over
            values[name] = scheduled(kind, start, end, rest)
    return ppo.model_copy(update=values)


def in_force(ppo: PPOConfig, adapted: Mapping[str, tuple[float, float]]) -> PPOConfig:
    """Return the settings with adapted values. adapted: name -> (the setting that it started from, its value now).

    Where the setting has changed since (a person turned the dial), the new one rules and adapting begins from there.
    """
    moving = {"learning_rate": ppo.learning_rate_schedule == "adaptive", "ent_coef": ppo.target_entropy is not None}
    values = {name: value for name, (start, value) in adapted.items() if moving[name] and getattr(ppo, name) == start}
    return ppo.model_copy(update=values) if values else ppo


def adapted_learning_rate(rate: float, kl: float, desired_kl: float) -> float:
    """Return the next update's rate, from KL(old || new) of this one (Schulman et al. 2017, section 4).

    A third less where the policy moved more than twice as far as desired, half as much again where less than half as
    far, within 1e-6..1e-2. A policy that did not move at all says nothing about the rate.
    """
    if kl > 2.0 * desired_kl:
        return max(rate / 1.5, min(rate, 1e-6))
    if 0.0 < kl < 0.5 * desired_kl:
        return min(rate * 1.5, max(rate, 1e-2))
    return rate


def adapted_ent_coef(ent_coef: float, entropy: float, target: float) -> float:
    """Return the next update's entropy weight: up while the entropy (nats) is below its target, down while above.

    A controller in log space: log c' = log c + 0.1 * clip(target - H, -1, 1), within 1e-6..1.
    """
    step = 0.1 * min(max(target - entropy, -1.0), 1.0)
    return min(max(max(ent_coef, 1e-6) * math.exp(step), 1e-6), 1.0)


def warmup_factor(warmup_steps: float, global_step: int, rollout_steps: int) -> float:
    """Return a factor that rises to 1 over the first `warmup_steps` env steps.

    The first update already has a share of the way: with a rate of 0 its whole rollout would be wasted.
    """
    return 1.0 if warmup_steps <= 0.0 else min(1.0, (global_step + rollout_steps) / warmup_steps)
