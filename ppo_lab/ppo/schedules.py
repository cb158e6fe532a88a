"""The value of each setting at a point of training, after schedules, warm-up, adaptation and live changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from ppo_lab.config import SCHEDULED, PPOConfig


class LiveChange(NamedTuple):
    """A setting that was changed during training."""

    value: float
    global_step: int  # env steps before the change took effect


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
    """Return the settings of the update that starts at `global_step` of `total`, after schedules and live changes.

    A live change sets the value from then on. A linear or cosine schedule continues from it to the same end value in
    the remaining time; with milestones it holds until the next one. If a run is extended, the schedules are computed as
    if the new total had been configured from the start, so a value can jump back up.
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
            rest = (progress - since) / (1.0 - since) if since < 1.0 else 1.0  # progress since the change, in 0..1
            values[name] = scheduled(kind, start, end, rest)
    return ppo.model_copy(update=values)


def in_force(ppo: PPOConfig, adapted: Mapping[str, tuple[float, float]]) -> PPOConfig:
    """Return the settings with the values of adaptive ones. adapted: name -> (initial value, current value).

    If the setting has been changed since and no longer equals the initial value, adaptation restarts from the setting.
    """
    moving = {"learning_rate": ppo.learning_rate_schedule == "adaptive", "ent_coef": ppo.target_entropy is not None}
    values = {name: value for name, (start, value) in adapted.items() if moving[name] and getattr(ppo, name) == start}
    return ppo.model_copy(update=values) if values else ppo


def adapted_learning_rate(rate: float, kl: float, desired_kl: float) -> float:
    """Return the learning rate of the next update, from KL(old || new) of this one (nats).

        rate / 1.5  if KL > 2 * desired_kl      (at least 1e-6)
        rate * 1.5  if 0 < KL < desired_kl / 2  (at most 1e-2)
        rate        otherwise

    The idea of the adaptive KL penalty of Schulman et al. 2017, section 4, applied to the learning rate. KL = 0 means
    that the policy did not change at all, which says nothing about the rate.
    """
    if kl > 2.0 * desired_kl:
        return max(rate / 1.5, min(rate, 1e-6))
    if 0.0 < kl < 0.5 * desired_kl:
        return min(rate * 1.5, max(rate, 1e-2))
    return rate


def adapted_ent_coef(ent_coef: float, entropy: float, target: float) -> float:
    """Return the entropy weight of the next update: higher if the entropy H (nats) is below its target, else lower.

        log c' = log c + 0.1 * clip(target - H, -1, 1),   with c' limited to 1e-6..1

    This is a proportional controller of log c.
    """
    step = 0.1 * min(max(target - entropy, -1.0), 1.0)
    return min(max(max(ent_coef, 1e-6) * math.exp(step), 1e-6), 1.0)


def warmup_factor(warmup_steps: float, global_step: int, rollout_steps: int) -> float:
    """Return the warm-up factor of the learning rate, which rises linearly to 1 over `warmup_steps` env steps.

        min(1, (global_step + rollout_steps) / warmup_steps)

    It is above 0 in the first update already, because a learning rate of 0 would waste the first rollout.
    """
    return 1.0 if warmup_steps <= 0.0 else min(1.0, (global_step + rollout_steps) / warmup_steps)
