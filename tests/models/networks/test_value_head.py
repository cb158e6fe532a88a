"""Tests of normalised values: V stays the same when statistics change; targets do not depend on the reward's units."""

import numpy as np
import torch

from ppo_lab.models.networks.value_head import ValueHead


def test_values_stay_when_the_statistics_move():
    torch.manual_seed(1)
    head = ValueHead(8, normalize=True)
    features = torch.randn(50, 8)
    for scale, shift in ((1.0, 0.0), (300.0, -1000.0), (0.01, 5.0)):
        before = head(features)
        head.refresh(torch.randn(200) * scale + shift)
        assert torch.allclose(head(features), before, rtol=1e-5, atol=1e-3)
        assert not torch.equal(head.scale, torch.ones(()))


def test_the_statistics_are_those_of_all_returns():
    torch.manual_seed(1)
    head, batches = ValueHead(4, normalize=True), [torch.randn(n) * 3 + 7 for n in (5, 60, 1)]
    for batch in batches:
        head.refresh(batch)
    everything = torch.cat(batches).double().numpy()
    assert np.isclose(head.mean.item(), everything.mean())
    assert np.isclose(head.scale.item(), everything.std(), rtol=1e-4)


def test_targets_do_not_depend_on_the_units_of_the_reward():
    torch.manual_seed(1)
    returns = torch.randn(300)
    plain, other = ValueHead(4, normalize=True), ValueHead(4, normalize=True)
    plain.refresh(returns)
    other.refresh(returns * 40 + 13)
    ours = plain.normalized(returns - plain.mean)
    theirs = other.normalized(returns * 40 + 13 - other.mean)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_equal_returns_do_not_blow_it_up():
    head = ValueHead(4, normalize=True)
    head.refresh(torch.full((10,), 2.0))
    assert torch.isfinite(head(torch.randn(3, 4))).all()
    head.refresh(torch.zeros(0))  # every row was a reset


def test_without_normalisation_it_is_a_linear_layer():
    head = ValueHead(4, normalize=False)
    assert set(head.state_dict()) == {"weight", "bias"}
    assert head.normalized(torch.tensor(3.0)).item() == 3.0
