"""The value of every setting at a point of training: schedules, and what a person changed on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from ppo_lab.config import SCHEDULED, PPOConfig


class LiveChange(NamedTuple):
    """A setting that was changed while training ran."""

    value: float
    progress: float  # of training, 0..1, when the change took effect


def scheduled(
    name: str, start: float, end: float, progress: float, milestones: Mapping[float, float] | None = None
) -> float:
    """The value of a schedule at `progress` in 0..1 (0 at the first update, below 1 at the last).

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


def settings_at(ppo: PPOConfig, live: Mapping[str, LiveChange], progress: float) -> PPOConfig:
    """The settings of the update that begins at `progress`: schedules applied, live changes in force.

    A live change is the value from that moment on; a schedule goes on from it to the same end in the time that is
    left (linear, cosine), or until the next milestone.
    """
    values: dict[str, float | None] = {name: change.value for name, change in live.items()}
    for name in SCHEDULED:
        start, since = live.get(name, LiveChange(getattr(ppo, name), 0.0))
        kind, end = getattr(ppo, f"{name}_schedule"), getattr(ppo, f"{name}_end")
        if kind == "milestones":
            later = {
                at: value for at, value in getattr(ppo, f"{name}_milestones").items() if at > since or since == 0.0
            }
            values[name] = scheduled(kind, start, end, progress, later)
        else:
            values[name] = scheduled(kind, start, end, _rest(progress, since))
    return ppo.model_copy(update=values)


def _rest(progress: float, since: float) -> float:
    """How much of the training that was left at `since` is over; progress can step back when a run is made longer."""
    return max(progress - since, 0.0) / (1.0 - since) if since < 1.0 else 1.0


def warmup_factor(warmup: float, progress: float, step: float) -> float:
    """A factor that climbs to 1 over the first `warmup` of training; `step` is the progress of one update.

    The first update already has a share of the way: with a rate of 0 its whole rollout would be wasted.
    """
    return 1.0 if warmup <= 0.0 else min(1.0, (progress + step) / warmup)
