"""The learner of an update by the fast engine or the reference, for models and settings of a test."""

from __future__ import annotations

from ppo_lab.config import PPOConfig
from ppo_lab.engine.learning import AutogradWay, ByHandWay
from ppo_lab.ppo.contract import Learner
from ppo_lab.ppo.rollout import Rollout
from ppo_lab.ppo.state import TrainState


def learner_of(state: TrainState, rollout: Rollout, ppo: PPOConfig, engine: str = "auto") -> Learner:
    way = ByHandWay() if engine == "auto" else AutogradWay()
    return way.learner(state, rollout, ppo)
