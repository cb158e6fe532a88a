"""`load_policy` gives the trainer's policy, without an environment and without changing a file."""

from __future__ import annotations

import shutil
import sys

import gymnasium
import numpy as np
import pytest
import torch

import ppo_lab.envs.making
import ppo_lab.training.environments
from ppo_lab import load_policy
from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.errors import LabError, RunError
from ppo_lab.training.trainer import Trainer


class FromMinusTwo(gymnasium.Env):
    """Five actions, the first of which is -2; the reward is the action's distance from a corner of the observation."""

    observation_space = gymnasium.spaces.Box(-5, 5, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(5, start=-2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._look(), {}

    def step(self, action):
        assert -2 <= action <= 2
        self.steps += 1
        return self._look(), float(action), self.steps >= 9, False, {}

    def _look(self):
        return self.np_random.normal(3.0, 2.0, 3).clip(-5, 5).astype(np.float32)


gymnasium.register("tests/FromMinusTwo-v0", FromMinusTwo)
ENVS = ["ppo_lab/CartPole-v1", "tests/FromMinusTwo-v0", "Pendulum-v1"]
BASE = {
    "env": {"num_envs": 2},
    "model": {"hidden_sizes": [8], "normalize_obs": True},
    "ppo": {"total_timesteps": 320, "num_steps": 16, "update_epochs": 1, "num_minibatches": 2, "learning_rate": 1e-2},
    "run": {"tensorboard": False, "checkpoint_every": 64, "name": "one", "keep_last": 20},
}


@pytest.fixture(params=ENVS)
def trained(request, tmp_path):
    """Make a run that is finished and closed. Return it and its policies by step."""
    trainer = Trainer(override(override(Config(), BASE), {"run.root": str(tmp_path), "env.id": request.param}))
    policies = {update.global_step: trainer.policy() for update in trainer}
    trainer.close()
    return trainer, policies


def forbid_environments(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("an environment was made")

    for module in (ppo_lab.envs.making, ppo_lab.training.environments, sys.modules["ppo_lab.evaluation.evaluate"]):
        monkeypatch.setattr(module, "make_envs", fail)
    monkeypatch.setattr(gymnasium, "make", fail)


def listing(folder):
    """Return every path with its modification times (of the entry, too) and its size."""
    paths = sorted([folder, *folder.rglob("*")])
    return [(p, p.stat().st_mtime_ns, p.stat().st_ctime_ns, p.stat().st_size) for p in paths]


def observations(trainer):
    return np.stack([trainer.envs.observation_space.sample() for _ in range(100)]).clip(-5, 5)


def agree(a, b, obs):
    """Assert equal actions for a batch and single observations, NumPy and torch, and when sampled."""
    assert a.predict(obs).tolist() == b.predict(obs).tolist()
    assert a.predict(obs).dtype == b.predict(obs).dtype
    assert [a.predict(row).tolist() for row in obs[:9]] == [b.predict(row).tolist() for row in obs[:9]]
    assert torch.equal(a.predict(torch.from_numpy(obs)), b.predict(torch.from_numpy(obs)))
    drawn = a.predict(obs, deterministic=False)
    assert drawn.tolist() == b.predict(obs, deterministic=False).tolist()
    starts, tensor = torch.ones(len(obs), dtype=torch.bool), torch.from_numpy(obs)
    assert torch.equal(a.value(tensor)[0], b.value(tensor)[0])
    assert a.act(tensor, None, starts)[0].shape == b.act(tensor, None, starts)[0].shape
    return drawn


def test_it_is_the_trainer_s_policy_and_needs_neither_environment_nor_write(trained, tmp_path, monkeypatch):
    trainer, _ = trained
    before = listing(tmp_path)
    forbid_environments(monkeypatch)
    policy = load_policy(tmp_path / "one")
    drawn = agree(policy, trainer.policy(), observations(trainer))
    assert listing(tmp_path) == before
    if isinstance(trainer.envs.action_space, gymnasium.spaces.Discrete):
        space = trainer.envs.action_space
        assert set(drawn.tolist()) <= set(range(int(space.start), int(space.start + space.n)))
    assert not any(parameter.requires_grad for parameter in policy.model.parameters())


def test_the_normaliser_comes_with_it(trained, tmp_path):
    trainer, _ = trained
    policy, obs = load_policy(tmp_path / "one"), torch.from_numpy(observations(trainer))
    features = policy.model.features(obs)
    assert torch.equal(features, trainer.state.model.features(obs))
    assert not torch.allclose(features, obs)


def test_at_a_step_and_at_the_best(trained, tmp_path):
    trainer, policies = trained
    obs = observations(trainer)
    for step in (64, 192, 320):
        agree(load_policy(tmp_path / "one", at=step), policies[step], obs)
    weights = [next(policies[step].model.parameters()) for step in (64, 192)]
    assert not torch.equal(*weights)
    (tmp_path / "one" / "best").write_text('{"step": 128, "score": 1.0}')
    agree(load_policy(tmp_path / "one", at="best"), policies[128], obs)


def test_a_run_that_trains_can_be_read(tmp_path):
    trainer = Trainer(override(override(Config(), BASE), {"run.root": str(tmp_path), "env.id": ENVS[0]}))
    for update in trainer:
        if update.update == 3:
            break
    trainer.save()
    agree(load_policy(tmp_path / "one"), trainer.policy(), observations(trainer))
    list(trainer)
    trainer.close()


def test_every_error_is_one_line(tmp_path):
    trainer = Trainer(override(override(Config(), BASE), {"run.root": str(tmp_path), "env.id": ENVS[0]}))
    trainer.close()
    cases = [(tmp_path / "none", "latest", "no run at"), (tmp_path / "one", "latest", "has no whole checkpoint")]
    cases += [
        (tmp_path / "one", "best", "has no whole checkpoint"),
        (tmp_path / "one", 7, "has no checkpoint at 7"),
    ]
    for place, at, text in cases:
        with pytest.raises(RunError, match=text) as caught:
            load_policy(place, at=at)
        assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_the_settings_are_one_line(trained, tmp_path):
    config = tmp_path / "one" / "config.yaml"
    config.write_text(config.read_text().replace("hidden_sizes: [8]", "hidden_sizes: [9]"))
    with pytest.raises(RunError, match="the weights do not fit the settings of the run") as caught:
        load_policy(tmp_path / "one")
    assert "\n" not in str(caught.value)
    config.write_text("env: 3")
    with pytest.raises(LabError):
        load_policy(tmp_path / "one")


def test_a_run_can_be_copied_elsewhere(trained, tmp_path):
    trainer, _ = trained
    shutil.copytree(tmp_path / "one", tmp_path / "elsewhere" / "copy")
    shutil.rmtree(tmp_path / "one")
    agree(load_policy(tmp_path / "elsewhere" / "copy"), trainer.policy(), observations(trainer))
