"""Parameters side by side stay what they were: their numbers, their places, and who else may touch them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ppo_lab.engine.flat_adam import adam_step
from ppo_lab.engine.flat_parameters import LINE, FlatParameters


def network():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 32), nn.Linear(32, 1))


def gaps(flat: FlatParameters) -> torch.Tensor:
    """The numbers that no parameter holds."""
    held = torch.zeros_like(flat.value, dtype=torch.bool)
    for part in flat.parts(held):
        part.fill_(True)
    return ~held


def test_nothing_changes_but_where_the_numbers_are():
    model = network()
    x, before = torch.randn(7, 3), [parameter.detach().clone() for parameter in model.parameters()]
    expected = model(x)
    flat = FlatParameters(model.parameters())
    assert torch.equal(model(x), expected)
    assert all(map(torch.equal, before, model.parameters()))
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())
    flat.value.add_(1.0)
    flat.grad.add_(2.0)
    assert all(
        torch.equal(b + 1.0, p) and p.grad.eq(2.0).all() for b, p in zip(before, model.parameters(), strict=True)
    )


def test_every_part_begins_where_torch_lets_a_tensor_begin():
    model = network()
    flat = FlatParameters(model.parameters())
    for parameter in model.parameters():
        assert parameter.data_ptr() % (4 * LINE) == parameter.grad.data_ptr() % (4 * LINE) == 0
        assert parameter.is_contiguous()
    assert not flat.value[gaps(flat)].any()
    assert gaps(flat).sum() == len(flat.value) - sum(parameter.numel() for parameter in model.parameters())


def test_parameters_of_one_shape_are_one_view():
    one, other = nn.Linear(3, 5), nn.Linear(3, 5)
    flat = FlatParameters([*one.parameters(), *other.parameters()], [one.weight, other.weight, one.bias, other.bias])
    weights, biases = flat.stack(flat.value, [one.weight, other.weight]), flat.stack(flat.value, [one.bias, other.bias])
    assert torch.equal(weights, torch.stack([one.weight, other.weight]))
    assert torch.equal(biases, torch.stack([one.bias, other.bias]))
    weights[1] += 1.0
    assert torch.equal(weights[1], other.weight)
    assert not torch.equal(weights[0], other.weight)


def test_what_somebody_put_in_the_place_of_a_parameter_is_taken_over():
    model = network()
    flat = FlatParameters(model.parameters())
    with torch.no_grad():
        model[0].weight.data = torch.full((5, 3), 4.0)
    model[2].bias.grad = torch.ones(32)
    model[3].weight.grad = None
    flat.hold()
    assert flat.parts(flat.value)[0].eq(4.0).all()
    for parameter, value, grad in zip(model.parameters(), flat.parts(flat.value), flat.parts(flat.grad), strict=True):
        assert parameter.data_ptr() == value.data_ptr()
        assert parameter.grad.data_ptr() == grad.data_ptr()


@pytest.mark.parametrize("begun", [False, True])
def test_moments_are_those_of_the_optimizer(begun):
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    if begun:
        model(torch.randn(7, 3)).sum().backward()
        optimizer.step()
    before = copy.deepcopy(optimizer.state_dict()["state"])
    flat = FlatParameters(model.parameters())
    moments = flat.moments(optimizer)
    assert moments is flat.moments(optimizer)
    assert moments.alike
    for i, state in optimizer.state_dict()["state"].items():
        known = before.get(i, {name: torch.zeros_like(kept) for name, kept in state.items()})
        assert state.keys() == known.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(state[name], known[name]) for name in state)
    moments.mean.fill_(7.0)
    assert all(state["exp_avg"].eq(7.0).all() for state in optimizer.state.values())
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again = flat.moments(optimizer)
    assert again is not moments
    assert again.mean[~gaps(flat)].eq(7.0).all()


def test_a_copy_of_the_model_is_on_its_own():
    model = network()
    flat = FlatParameters(model.parameters())
    twin = copy.deepcopy(model)
    flat.value.zero_()
    assert all(parameter.any() for parameter in twin.parameters())


def test_an_optimizer_of_other_parameters_keeps_its_own():
    model = network()
    optimizer = torch.optim.Adam(list(model.parameters())[1:], fused=True)
    flat = FlatParameters(model.parameters())
    assert flat.moments(optimizer) is None
    assert not adam_step(optimizer, flat)
    assert not optimizer.state
