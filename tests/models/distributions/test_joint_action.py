"""Tests of hybrid actions: components are independent, likelihoods multiply, each part is returned under its key."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from ppo_lab.config import ModelConfig
from ppo_lab.models.distributions import make_head

F = 6
SPACE = spaces.Dict(
    {
        "arm.left/grip": spaces.MultiBinary([2, 2]),
        "arm.left/turn": spaces.Box(-2, 2, (2, 1), np.float32),
        "gear": spaces.Discrete(3, start=1),
        "keys": spaces.MultiDiscrete([2, 4], start=[0, 5]),
        "speed": spaces.Box(0, 9, (), np.float32),
    }
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def head_of(space=SPACE, **settings):
    torch.manual_seed(0)
    return make_head(space, F, ModelConfig(**settings))


@pytest.mark.parametrize("settings", [{}, {"distribution": "squashed"}, {"distribution": "beta"}, {"std": "state"}])
def test_likelihood_entropy_and_kl_are_sums_over_the_components(settings):
    head = head_of(**settings)
    features = torch.randn(2, 7, F, generator=rng())
    policy, other = head(features[0]), head(features[1])
    action = policy.sample(rng()).detach()
    assert action.shape == (7, 10)  # 4 bits, 2, 1, 2, 1
    assert action.dtype == head.action_dtype == torch.float32
    assert head.action_shape == (10,)
    assert policy.log_prob(action).shape == policy.entropy().shape == (7,)
    own = [action[:, :4].long(), action[:, 4:6], action[:, 6].long(), action[:, 7:9].long(), action[:, 9:]]
    parts, others = [part(features[0]) for part in head.parts], [part(features[1]) for part in head.parts]
    assert torch.allclose(policy.log_prob(action), sum(p.log_prob(a) for p, a in zip(parts, own, strict=True)))
    assert torch.allclose(policy.entropy(), sum(p.entropy() for p in parts))
    assert torch.allclose(policy.kl(other), sum(p.kl(q) for p, q in zip(parts, others, strict=True)))
    assert torch.equal(policy.kl(policy), torch.zeros(7))


def test_each_part_reaches_the_environment_under_its_key():
    head = head_of()
    done = head.to_env(head(torch.randn(200, F, generator=rng())).sample(rng()))
    assert list(done) == list(SPACE.spaces)
    assert {key: tuple(part.shape[1:]) for key, part in done.items()} == {k: s.shape for k, s in SPACE.items()}
    for row in range(200):
        one = {key: np.asarray(part[row].detach().numpy(), SPACE[key].dtype) for key, part in done.items()}
        assert all(SPACE[key].contains(part[()] if key == "gear" else part) for key, part in one.items())
    assert set(done["gear"].tolist()) == {1, 2, 3}


def test_the_mode_is_the_mode_of_each():
    head, features = head_of(), torch.randn(5, F, generator=rng())
    mode = head(features).mode()
    assert torch.equal(mode[:, 6].long(), head.parts[2](features).mode())
    assert torch.equal(mode[:, 9:], head.parts[4](features).mode())


def test_masks_go_to_the_components_that_take_one():
    head = head_of()
    assert head.mask_layout == (2, 2, 2, 2, 3, 2, 4)
    mask = torch.ones(300, 17, dtype=torch.bool)
    mask[:, 8:10] = False  # gear: only the third
    mask[:, 13:16] = False  # keys, second component: only the last
    drawn = head(torch.randn(300, F, generator=rng()), mask).sample(rng())
    assert (drawn[:, 6] == 2).all()
    assert (drawn[:, 8] == 3).all()
    assert set(drawn[:, 7].tolist()) == {0.0, 1.0}


def test_noise_of_all_boxes_lies_in_one_memory():
    head = head_of(std="gsde")
    memory = head.initial_noise(4)
    assert memory["noise"].shape == (4, F, 3)
    features, stale = torch.randn(4, F, generator=rng()), torch.ones(4, dtype=torch.bool)
    with torch.no_grad():
        policy = head(features, None, (memory["noise"], stale))
        first = policy.sample(rng())
        assert memory["noise"].abs().min() > 0  # written through the components' views
        again = head(features, None, (memory["noise"], ~stale)).sample(rng(9))
    continuous = [4, 5, 9]
    assert torch.equal(first[:, continuous], again[:, continuous])
    noise = torch.einsum("nf,nfa->na", features, memory["noise"])
    assert torch.allclose((first - policy.mode())[:, continuous], noise, atol=1e-5)


def test_only_choices_stay_whole_numbers():
    head = head_of(spaces.Dict({"a": spaces.Discrete(3), "b": spaces.MultiDiscrete([2, 2])}))
    action = head(torch.zeros(5, F)).sample(rng())
    assert action.dtype == head.action_dtype == torch.int64
    assert action.shape == (5, 3)


def test_weights_come_back_from_a_state_dict():
    head, other = head_of(), head_of()
    for parameter in other.parameters():
        parameter.data.normal_()
    other.load_state_dict(head.state_dict())
    features = torch.randn(3, F)
    assert torch.equal(head(features).mode(), other(features).mode())
