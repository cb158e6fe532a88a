"""ppo_lab: a Jupyter-first workbench for Proximal Policy Optimization. These are its public names."""

from ppo_lab.actor_critic import ActorCritic
from ppo_lab.advantages import explained_variance, gae
from ppo_lab.config import Config
from ppo_lab.config_file import load_config, override
from ppo_lab.envs import Envs, Step, make_envs
from ppo_lab.errors import ConfigError, EnvError, LabError, NonFiniteError, RunError
from ppo_lab.evaluation import Evaluation, evaluate, statistics
from ppo_lab.export import Policy
from ppo_lab.losses import ppo_loss
from ppo_lab.rollout import collect, minibatches
from ppo_lab.runs import read_metrics
from ppo_lab.trainer import Trainer, Update

__all__ = [  # noqa: RUF022  # grouped like a table of contents
    # settings
    "Config", "load_config", "override",
    # environments
    "Envs", "Step", "make_envs",
    # train
    "Trainer", "Update",
    # the algorithm, piece by piece
    "ActorCritic", "collect", "gae", "ppo_loss", "minibatches", "explained_variance",
    # use and judge what was learned
    "Policy", "evaluate", "Evaluation", "statistics", "read_metrics",
    # in Jupyter: ppo_lab.notebook, imported when asked for
    "notebook",
    # what can go wrong
    "LabError", "ConfigError", "EnvError", "NonFiniteError", "RunError",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name == "notebook":  # widgets and matplotlib take a second to import: only where they are used
        import importlib

        return importlib.import_module("ppo_lab.notebook")
    raise AttributeError(f"module 'ppo_lab' has no attribute {name!r}")
