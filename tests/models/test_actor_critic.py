"""Tests of the model: initialisation, separate and shared bodies, shapes, equal results from `step` and `evaluate`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from ppo_lab.config import ModelConfig
from ppo_lab.models.actor_critic import ActorCritic

BOX, DISCRETE = spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(2)


def model(obs=BOX, action=DISCRETE, **settings):
    torch.manual_seed(0)
    return ActorCritic(ModelConfig(**settings), obs, action)


def test_orthogonal_initialisation_with_its_gains():
    m = model(hidden_sizes=(64, 32))
    layers = [*m.actor_body.layers, *m.critic_body.layers]
    for layer, gain in [*((layer, 2**0.5) for layer in layers), (m.actor_head.logits, 0.01), (m.critic_head, 1.0)]:
        w = layer.weight.detach()
        gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        assert torch.allclose(gram, gain**2 * torch.eye(len(gram)), atol=1e-5)
        assert torch.equal(layer.bias, torch.zeros_like(layer.bias))


@pytest.mark.parametrize("shared", [False, True])
def test_who_gets_a_gradient_from_whom(shared):
    m = model(shared=shared)
    obs, starts = torch.randn(1, 6, 4), torch.zeros(1, 6, dtype=torch.bool)
    log_prob, _, value = m.evaluate(obs, torch.zeros(1, 6, dtype=torch.int64), None, starts)
    actor, critic = m.parameter_groups()
    value_gradient = torch.autograd.grad(value.sum(), actor, allow_unused=True, retain_graph=True)
    policy_gradient = torch.autograd.grad(log_prob.sum(), critic, allow_unused=True)
    assert all(g is None for g in policy_gradient)
    assert any(g is not None for g in value_gradient) == shared
    assert len(actor) + len(critic) == len(list(m.parameters()))


@pytest.mark.parametrize(
    ("obs_space", "obs"),
    [
        (BOX, torch.randn(5, 4)),
        (spaces.Box(-1, 1, (2, 3), np.float32), torch.randn(5, 2, 3)),
        (spaces.Box(-1, 1, (), np.float32), torch.randn(5)),
        (spaces.Box(0, 9, (3,), np.int64), torch.randint(0, 9, (5, 3))),
        (spaces.Discrete(4, start=2), torch.tensor([2, 3, 4, 5, 2])),
    ],
)
@pytest.mark.parametrize("action_space", [DISCRETE, spaces.Box(-1, 1, (3,), np.float32)])
@pytest.mark.parametrize("activation", ["tanh", "relu", "elu", "gelu", "leaky_relu", "silu"])
def test_shapes_and_the_same_answer_from_step_and_evaluate(obs_space, obs, action_space, activation):
    m = model(obs_space, action_space, activation=activation, normalize_obs=True)
    starts = torch.zeros(5, dtype=torch.bool)
    distribution, memory = m.step(obs, None, starts)
    action = distribution.sample(torch.Generator().manual_seed(0))
    log_prob, entropy, value = m.evaluate(obs[None], action[None], None, starts[None])
    assert memory is None
    assert log_prob.shape == entropy.shape == value.shape == (1, 5)
    assert torch.allclose(log_prob[0], distribution.log_prob(action), atol=1e-6)
    assert torch.allclose(value[0], m.value(obs), atol=1e-6)
    assert m.value(torch.stack([obs, obs])).shape == (2, 5)


def test_discrete_observations_are_one_hot_from_their_start():
    m = model(spaces.Discrete(4, start=2))
    assert torch.equal(m.features(torch.tensor([2, 5])), torch.eye(4)[[0, 3]])


def test_without_hidden_layers_it_is_linear():
    m = model(hidden_sizes=())
    x = torch.randn(3, 4)
    assert torch.allclose(m.value(2 * x), 2 * m.value(x), atol=1e-6)


def test_statistics_move_only_when_refreshed():
    m = model(normalize_obs=True)
    obs = torch.randn(100, 4) * 5 + 3
    before = m.value(obs)
    assert torch.equal(m.value(obs), before)  # computing values does not change the statistics
    m.refresh_statistics(obs)
    assert not torch.equal(m.value(obs), before)
    assert torch.allclose(m.features(obs).mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(m.features(obs).std(0, correction=0), torch.ones(4), atol=1e-5)


def test_it_says_how_many_parameters_it_has():
    space, actions = spaces.Box(-1.0, 1.0, (4,), np.float32), spaces.Discrete(2)
    body, gru = 4 * 8 + 8, 3 * (8 * 16 + 16 * 16 + 2 * 16)
    plain = ActorCritic(ModelConfig(hidden_sizes=(8,)), space, actions)
    assert plain.describe() == f"{2 * body + 18 + 9} parameters (actor {body + 18}, critic {body + 9})"
    core = ActorCritic(ModelConfig(hidden_sizes=(8,), core="gru", core_size=16, shared=True), space, actions)
    actor = body + gru + 34
    assert core.describe() == f"{actor + 17:,} parameters (actor {actor:,}, critic 17, body shared)"
