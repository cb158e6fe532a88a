"""Environments: the `Envs` contract, and everything that Gymnasium can make behind it.

Each name is imported when it is first used: worker processes import this package and must not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ppo_lab.envs.contract import Action as Action
    from ppo_lab.envs.contract import Envs as Envs
    from ppo_lab.envs.contract import EnvsWrapper as EnvsWrapper
    from ppo_lab.envs.contract import Obs as Obs
    from ppo_lab.envs.contract import Step as Step

__all__ = ["Action", "Envs", "EnvsWrapper", "Obs", "Step"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("ppo_lab.envs.contract"), name)
    raise AttributeError(f"module 'ppo_lab.envs' has no attribute {name!r}")
