"""Evaluation of policies: `evaluate` plays episodes and returns raw returns and lengths; statistics summarize them."""

from ppo_lab.evaluation.evaluate import Evaluation, EvaluationStopped, evaluate, run_episodes
from ppo_lab.evaluation.statistics import (
    bootstrap_interval,
    describe,
    iqm,
    mean_interval,
    probability_of_improvement,
    stratified_interval,
)

__all__ = [
    "Evaluation",
    "EvaluationStopped",
    "bootstrap_interval",
    "describe",
    "evaluate",
    "iqm",
    "mean_interval",
    "probability_of_improvement",
    "run_episodes",
    "stratified_interval",
]
