"""A checkpoint as a fork with other settings takes it over: what is in the units of the old ones is converted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ppo_lab.config import Config, PPOConfig
from ppo_lab.errors import RunError
from ppo_lab.models.networks.value_head import converted_head, restarted_head

HEAD = "critic_head."


def converted(saved: Mapping[str, Any], old: Config, new: Config, same_task: bool) -> dict[str, Any]:
    """Convert a checkpoint's tree of a run with settings `old` for one with settings `new`. The input stays unchanged.

    V(s) stays what it was. Statistics of rewards and returns begin anew where those come in other units from now on, or
    are of another task; where rewards are multiplied by a number they are multiplied too.
    """
    tree, factor = dict(saved), reward_factor(old.ppo, new.ppo) if same_task else None
    tree["reward_scaler"] = _rescaled(saved["reward_scaler"], factor)
    head = {name.removeprefix(HEAD): rows for name, rows in saved["model"].items() if name.startswith(HEAD)}
    if old.model.normalize_value != new.model.normalize_value:
        head = converted_head(head, new.model.normalize_value)
        # its gradients are those of a loss in other units: with the old second moments they would count for too little
        tree["optimizer"] = _without_critic(saved["optimizer"])
    elif new.model.normalize_value and not _same_returns(old.ppo, new.ppo, factor):
        head = restarted_head(head)
    others = {name: rows for name, rows in saved["model"].items() if not name.startswith(HEAD)}
    tree["model"] = {**others, **{HEAD + name: rows for name, rows in head.items()}}
    return tree


def reward_factor(old: PPOConfig, new: PPOConfig) -> float | None:
    """Return the factor of rewards before they are normalised, relative to what it was; None: it is not one number."""
    if old.reward_bound is None and new.reward_bound is None:
        return new.reward_scale / old.reward_scale
    return 1.0 if (old.reward_scale, old.reward_bound) == (new.reward_scale, new.reward_bound) else None


def check_fit(saved: Mapping[str, Tensor], model: nn.Module, changes: Mapping[str, list[Any]]) -> None:
    """Raise RunError, naming them, if other settings of `model` made other weights than the saved ones.

    changes: {"model.core": [old, new]}.
    """
    made = [f"{key} {old} -> {new}" for key, (old, new) in changes.items() if key.startswith("model.")]
    shapes, theirs = ({name: rows.shape for name, rows in each.items()} for each in (model.state_dict(), saved))
    if made and shapes != theirs:
        raise RunError(f"the weights of the checkpoint do not fit this model: a fork cannot change {', '.join(made)}")


def _same_returns(old: PPOConfig, new: PPOConfig, factor: float | None) -> bool:
    """Return whether the critic's targets come in the same units as before."""
    if old.normalize_reward and new.normalize_reward:
        return factor is not None  # the factor is divided out again
    return old.normalize_reward == new.normalize_reward and factor == 1.0


def _rescaled(scaler: Mapping[str, Tensor], factor: float | None) -> dict[str, Tensor]:
    """Return the statistics of rewards multiplied by `factor`; None: of no reward yet."""
    if factor is None:
        return {name: torch.zeros_like(rows) for name, rows in scaler.items()}
    powers = {"discounted_return": factor, "mean": factor, "squares": factor**2, "count": 1.0}
    return {name: rows * powers[name] for name, rows in scaler.items()}


def _without_critic(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the optimizer without the moments of the critic's own parameters; those of a shared body stay."""
    critics = {i for group in optimizer["param_groups"] if group["role"] == "critic" for i in group["params"]}
    kept = {i: moments for i, moments in optimizer["state"].items() if int(i) not in critics}
    return {**optimizer, "state": kept}
