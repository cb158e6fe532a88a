"""A rollout in NumPy is the rollout in torch: the same actions and transitions, log probabilities to rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from environment.cartpole import CartPole
from ppo_lab.config import Config
from ppo_lab.config.loading import override
from ppo_lab.engine.acting import NumpyActing
from ppo_lab.engine.numpy_rollout import LARGEST, NumpyPolicy, numpy_policy
from ppo_lab.envs.making import make_envs
from ppo_lab.ppo.events import MinibatchStepped
from ppo_lab.ppo.rollout import Rollout, collect_stepwise, take_steps
from ppo_lab.ppo.state import initial_state
from ppo_lab.training.trainer import Trainer
from tests.scripted import Script

SMALL = {"model.hidden_sizes": [8, 16]}


def settings(**changes):
    return override(Config(), SMALL | {key.replace("__", "."): value for key, value in changes.items()})


def two_rollouts(config, envs, T, steps=None):
    """The second of two rollouts, and the state after it."""
    state = initial_state(config, envs)
    if config.model.normalize_obs:
        state.model.refresh_statistics(
            torch.randn(50, *state.obs.shape[1:], generator=torch.Generator().manual_seed(1))
        )
    with torch.no_grad():  # a policy that tells observations apart
        for parameter in state.model.actor_head.parameters():
            parameter.add_(torch.linspace(-0.5, 0.5, parameter.numel()).view_as(parameter))
    rollout = Rollout.empty(T, envs.num_envs, state.obs, state.model)
    for _ in range(2):
        for _ in collect_stepwise(envs, state.model, state, rollout, steps or NumpyActing().take_steps):
            pass
    return state, rollout


def cartpole():
    return CartPole(3, max_episode_steps=7)


def scripted():
    return Script(["...", "T.C", "..."], next_step=True)


def pendulum():
    return make_envs(override(Config(), {"env.id": "Pendulum-v1", "env.num_envs": 2}))


@pytest.mark.parametrize("T", [1, 40])
@pytest.mark.parametrize("make", [cartpole, scripted, pendulum])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_it_is_the_rollout_of_torch(make, T, normalize, activation):
    config = settings(model__normalize_obs=normalize, model__activation=activation)
    envs = make()
    ours, quick = two_rollouts(config, envs, T)
    assert isinstance(numpy_policy(ours.model, ours.obs), NumpyPolicy)
    theirs, slow = two_rollouts(config, make(), T, take_steps)
    assert torch.equal(quick.action, slow.action) or quick.action.is_floating_point()
    for name in ("terminated", "done", "valid", "starts", "episode_done"):
        assert torch.equal(getattr(quick, name), getattr(slow, name)), name
    for name in ("obs", "final_obs", "action", "log_prob", "value", "next_value", "reward"):
        assert torch.allclose(getattr(quick, name), getattr(slow, name), atol=1e-4, rtol=1e-4), name
    assert torch.equal(ours.starts, theirs.starts)
    assert torch.allclose(ours.obs, theirs.obs, atol=1e-4)
    assert torch.equal(ours.action_rng.get_state(), theirs.action_rng.get_state())


@pytest.mark.parametrize("body", [{"std": "state"}, {"std": "gsde"}, {"distribution": "beta"}, {"core": "gru"},
                                  {"precision": "bfloat16"}, {"activation": "elu"}])  # fmt: skip
def test_what_it_cannot_do_is_left_to_torch(body):
    envs = pendulum()
    state = initial_state(settings(model=body), envs)
    assert isinstance(numpy_policy(state.model, state.obs), str)


def test_many_rows_and_other_inputs_are_left_to_torch():
    state = initial_state(settings(), CartPole(3))
    assert isinstance(numpy_policy(state.model, state.obs), NumpyPolicy)
    assert isinstance(numpy_policy(state.model, state.obs.expand(LARGEST, 3, 4)[:, 0]), str)
    assert isinstance(numpy_policy(state.model, {"obs": state.obs}), str)
    assert isinstance(numpy_policy(state.model.double(), state.obs), str)
    envs = CartPole(3)
    envs.observation_space = spaces.MultiDiscrete([2, 2, 2, 2])
    assert isinstance(numpy_policy(initial_state(settings(), envs).model, state.obs), str)


def test_every_ratio_is_1_before_the_first_step_of_an_update():
    changes = {"run__root": None, "env__id": "ppo_lab/CartPole-v1", "env__num_envs": 8, "ppo__num_minibatches": 1}
    trainer = Trainer(settings(**changes, ppo__num_steps=32, ppo__total_timesteps=1024, ppo__update_epochs=1))
    for event in trainer.events():
        if isinstance(event, MinibatchStepped):
            batch = event.batch
            assert torch.isfinite(batch.log_prob).all()
            assert event.loss.approx_kl.abs() < 1e-9
            assert event.loss.clip_fraction == 0.0


def test_an_environment_s_own_warnings_are_its_own():
    """Only the policy's numbers may be infinite without a word: they are looked at after the rollout."""

    class Divides(CartPole):
        def step(self, action):
            with pytest.warns(RuntimeWarning, match="divide by zero"):
                np.ones(1) / np.zeros(1)
            return super().step(action)

    config = settings(run__root=None, ppo__num_steps=4, ppo__total_timesteps=8)
    list(Trainer(config, Divides(2)))
