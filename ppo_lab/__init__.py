"""ppo_lab: a Jupyter-first workbench for Proximal Policy Optimization. These are its public names.

Each is imported when it is first used: a worker process of `env.workers` imports this package too, and would spend
three seconds and 200 MB on torch for nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors; the same names as below
    from ppo_lab.config import Config as Config
    from ppo_lab.config.loading import load_config as load_config
    from ppo_lab.config.loading import override as override
    from ppo_lab.envs.contract import Envs as Envs
    from ppo_lab.envs.contract import Step as Step
    from ppo_lab.envs.making import make_envs as make_envs
    from ppo_lab.errors import ConfigError as ConfigError
    from ppo_lab.errors import EnvError as EnvError
    from ppo_lab.errors import LabError as LabError
    from ppo_lab.errors import NonFiniteError as NonFiniteError
    from ppo_lab.errors import RunError as RunError
    from ppo_lab.evaluation import Evaluation as Evaluation
    from ppo_lab.evaluation import evaluate as evaluate
    from ppo_lab.evaluation import statistics as statistics
    from ppo_lab.evaluation.policy import Policy as Policy
    from ppo_lab.evaluation.policy import load_policy as load_policy
    from ppo_lab.models.actor_critic import ActorCritic as ActorCritic
    from ppo_lab.models.networks import register_body as register_body
    from ppo_lab.ppo.advantages import explained_variance as explained_variance
    from ppo_lab.ppo.advantages import gae as gae
    from ppo_lab.ppo.batches import minibatches as minibatches
    from ppo_lab.ppo.learner import minibatch_loss as minibatch_loss
    from ppo_lab.ppo.losses import Loss as Loss
    from ppo_lab.ppo.losses import ppo_loss as ppo_loss
    from ppo_lab.ppo.rollout import collect as collect
    from ppo_lab.runs import list_runs as list_runs
    from ppo_lab.runs import read_journal as read_journal
    from ppo_lab.runs import read_metrics as read_metrics
    from ppo_lab.training.replay import replay as replay
    from ppo_lab.training.trainer import Trainer as Trainer
    from ppo_lab.training.trainer import Update as Update

_HOMES = {  # public name -> its module, grouped like a table of contents
    # settings
    "Config": "config", "load_config": "config.loading", "override": "config.loading",
    # environments
    "Envs": "envs.contract", "Step": "envs.contract", "make_envs": "envs.making",
    # train
    "Trainer": "training.trainer", "Update": "training.trainer",
    # the algorithm, piece by piece
    "ActorCritic": "models.actor_critic", "register_body": "models.networks", "collect": "ppo.rollout",
    "gae": "ppo.advantages", "ppo_loss": "ppo.losses", "minibatch_loss": "ppo.learner", "Loss": "ppo.losses",
    "minibatches": "ppo.batches",
    "explained_variance": "ppo.advantages",
    # use and judge what was learned
    "Policy": "evaluation.policy", "load_policy": "evaluation.policy",
    "evaluate": "evaluation", "Evaluation": "evaluation", "statistics": "evaluation",
    # runs on disk: resume and fork are Trainer's
    "read_metrics": "runs", "read_journal": "runs", "list_runs": "runs", "replay": "training.replay",
    # what can go wrong
    "LabError": "errors", "ConfigError": "errors", "EnvError": "errors", "NonFiniteError": "errors",
    "RunError": "errors",
}  # fmt: skip
__all__ = [*_HOMES, "notebook"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"ppo_lab.{_HOMES[name]}"), name)
    if name == "notebook":  # in Jupyter
        return import_module("ppo_lab.notebook")
    raise AttributeError(f"module 'ppo_lab' has no attribute {name!r}")
