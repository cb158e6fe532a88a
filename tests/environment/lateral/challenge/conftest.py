"""What the tests of this folder share: policies and runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from environment.lateral_env import VectorizedLateralControlEnv
from ppo_lab.config import ModelConfig
from ppo_lab.config.loading import load_config
from ppo_lab.evaluation.policy import Policy
from ppo_lab.models.actor_critic import ActorCritic
from ppo_lab.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[4]
QUICK = {"model.hidden_sizes": [8], "ppo.total_timesteps": 800, "ppo.update_epochs": 1, "run.tensorboard": False}


@pytest.fixture(scope="session")
def make_policy():
    """A policy with random weights that steers hard enough for differences to show."""

    def make(observation="compact", **settings):
        envs = VectorizedLateralControlEnv(1, segments=(0, 1), observation=observation)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            network = ActorCritic(
                ModelConfig(hidden_sizes=(16,), **settings), envs.observation_space, envs.action_space
            )
            for parameter in network.actor_head.parameters():
                parameter.data += 0.2 * torch.randn_like(parameter)
        return Policy(network)

    return make


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """Train a run that has hardly learned anything; returns its folder."""

    def make(name, settings=None, **kwargs):
        place = {"run.root": str(tmp_path_factory.mktemp("runs")), "run.name": name, "env.num_envs": 2}
        env = {"env.kwargs": {"segments": [0, 20], **kwargs}}
        trainer = Trainer(load_config(ROOT / "config.yaml", "lateral", {**QUICK, **place, **env, **(settings or {})}))
        for _ in trainer:
            pass
        trainer.close()
        return trainer.run.folder

    return make


@pytest.fixture(scope="session")
def run(make_run):
    """A run with the default observation and action."""
    return make_run("steers")
