"""Small histories and trainers for tests of plots, sessions and views."""

from __future__ import annotations

import numpy as np

from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.training.trainer import Trainer


def columns(updates: int, steps: int = 1024) -> dict[str, np.ndarray]:
    """Return metrics of a run that learns, as `ppo_lab.runs.metrics.as_columns` does; no episode ends in update 1."""
    rng = np.random.default_rng(updates)
    progress = np.arange(1, updates + 1) / updates
    returns = 20 + 480 / (1 + np.exp(-12 * (progress - 0.5))) + rng.normal(0, 4, updates)
    returns[:1] = np.nan
    return {
        "update": np.arange(1.0, updates + 1),
        "global_step": np.arange(1.0, updates + 1) * steps,
        "episode/return_mean": returns,
        "episode/return_std": np.full(updates, 30.0),
        "update/approx_kl": np.abs(rng.normal(0.01, 0.003, updates)),
        "update/clip_fraction": np.abs(rng.normal(0.1, 0.03, updates)),
        "loss/entropy": 0.69 - 0.3 * progress,
        "update/explained_variance": 1 - 3 * np.exp(-6 * progress),
    }


def trainer(updates: int = 6, **overrides: object) -> Trainer:
    """Create a real trainer whose update takes milliseconds, on a built-in environment that needs no package."""
    small = {
        "env.id": "ppo_lab/CartPole-v1",
        "env.num_envs": 4,
        "model.hidden_sizes": [8],
        "ppo.num_steps": 16,
        "ppo.update_epochs": 2,
        "ppo.num_minibatches": 2,
        "ppo.total_timesteps": updates * 64,
        "run.root": None,
    }
    return Trainer(override(Config(), {**small, **overrides}))


class Silent:
    """A view that shows nothing."""

    def refresh(self, session, force=False):
        pass

    def finish(self, session):
        pass

    def show(self, session):
        pass
