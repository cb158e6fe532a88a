"""Tests of sets: the order of entities and the content of absent ones have no effect; empty sets are handled."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ppo_lab.config import ModelConfig
from ppo_lab.models.networks.entities import SetEncoder

SETTINGS = ModelConfig(attention_size=16, attention_heads=4, attention_layers=2)


def encoder(f=3, settings=SETTINGS):
    torch.manual_seed(0)
    return SetEncoder((5, f), settings)


def attention_by_hand(block, x, present):
    """Compute the first half of a block for one set (n, size) in NumPy."""

    def linear(layer, y):
        return y @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()

    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    q, k, v = (linear(layer, y) for layer in (block.query, block.key, block.value))
    width = x.shape[-1] // block.heads
    heads = []
    for h in range(block.heads):
        part = slice(h * width, (h + 1) * width)
        score = np.where(present, q[:, part] @ k[:, part].T / np.sqrt(width), -np.inf)
        weight = np.exp(score - score.max(-1, keepdims=True))
        heads.append(weight / weight.sum(-1, keepdims=True) @ v[:, part])
    return x + linear(block.attended, np.concatenate(heads, -1))


def test_attention_equals_numpy():
    block = encoder().blocks[0]
    torch.nn.init.normal_(block.query.bias)
    torch.nn.init.zeros_(block.narrow.weight)  # only the first half has an effect
    x, present = torch.randn(5, 16), np.array([True, False, True, True, False])
    ours = block(x[None], torch.as_tensor(present)[None, None, None])[0].detach().numpy()
    assert np.allclose(ours, attention_by_hand(block, x.double().numpy(), present), atol=1e-5)


def test_the_second_half_is_a_gelu_network_on_the_normed_sum():
    block = encoder().blocks[0]
    torch.nn.init.zeros_(block.attended.weight)
    x = torch.randn(2, 5, 16)
    inner = block.widen(torch.nn.functional.layer_norm(x, (16,)))
    assert inner.shape[-1] == 64
    assert torch.allclose(block(x, None), x + block.narrow(torch.nn.functional.gelu(inner)), atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_the_order_of_entities_means_nothing(masked):
    net = encoder()
    x, present = torch.randn(6, 5, 3), torch.rand(6, 5) > 0.4
    order = torch.randperm(5)
    args = (x, present) if masked else (x,)
    assert torch.allclose(net(*args), net(*(a[:, order] for a in args)), atol=1e-5)
    assert not torch.allclose(net(x), net(x.flip(0)), atol=1e-3)


@pytest.mark.parametrize("garbage", [1e9, float("nan"), float("inf")])
def test_absent_entities_have_no_influence_and_no_gradient(garbage):
    net = encoder()
    x, present = torch.randn(6, 5, 3), torch.rand(6, 5) > 0.5
    present[0], present[1] = False, True
    dirty = x.masked_fill(~present.unsqueeze(-1), garbage).requires_grad_()
    out = net(dirty, present)
    assert torch.equal(out, net(x.masked_fill(~present.unsqueeze(-1), 0.0), present))
    gradient = torch.autograd.grad(out.sin().sum(), [dirty, *net.parameters()])
    assert all(g.isfinite().all() for g in gradient)
    assert not gradient[0][~present].any()
    assert (gradient[0][present] != 0).any(-1).all()


def test_a_set_with_absent_entities_equals_the_smaller_set():
    net = encoder()
    x = torch.randn(4, 5, 3)
    present = torch.tensor([True, False, True, True, False]).expand(4, 5)
    assert torch.allclose(net(x, present), net(x[:, [0, 2, 3]]), atol=1e-5)
    assert torch.allclose(net(x, torch.ones(4, 5, dtype=torch.bool)), net(x), atol=1e-5)


def test_an_empty_set_gives_zeros_and_finite_gradients():
    net = encoder()
    out = net(torch.full((2, 5, 3), torch.nan), torch.zeros(2, 5, dtype=torch.bool))
    assert torch.equal(out, torch.zeros(2, net.num_features))
    assert all(not g.any() for g in torch.autograd.grad(out.sum(), list(net.parameters())))


def test_nobody_looks_at_nothing(monkeypatch):
    seen = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def watched(*args, attn_mask):
        seen.append(attn_mask)
        return attention(*args, attn_mask=attn_mask)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    present = torch.tensor([[False] * 5, [True, False, False, True, False]])
    encoder()(torch.randn(2, 5, 3), present)
    # torch on a CPU gives 0 for a row without entities; not every kernel does
    assert [mask[:, 0, 0].tolist() for mask in seen] == [[[True] * 5, present[1].tolist()]] * 2


def test_entities_look_at_each_other():
    net = encoder()
    x = torch.randn(1, 2, 3)
    apart = torch.stack([net(x[:, :1]), net(x[:, 1:])])[..., :16].mean(0)  # the mean without attention between them
    assert not torch.allclose(net(x)[..., :16], apart, atol=1e-3)


def test_the_mean_and_the_maximum_over_those_that_are_there():
    net = encoder(settings=ModelConfig(attention_size=4, attention_heads=1, attention_layers=1))
    for layer in (net.blocks[0].attended, net.blocks[0].narrow):
        torch.nn.init.zeros_(layer.weight)
    x, present = torch.randn(1, 5, 3), torch.tensor([[True, True, False, True, False]])
    embedded = torch.nn.functional.layer_norm(net.embed(x), (4,))[0, [0, 1, 3]].detach().numpy()
    expected = np.concatenate([embedded.mean(0), embedded.max(0)])
    assert np.allclose(net(x, present)[0].detach().numpy(), expected, atol=1e-5)


def test_any_leading_dimensions():
    net = encoder()
    x, present = torch.randn(2, 3, 5, 3), torch.rand(2, 3, 5) > 0.3
    whole = net(x, present)
    assert whole.shape == (2, 3, 32)
    assert net.num_features == 32
    assert torch.allclose(whole.flatten(0, 1), net(x.flatten(0, 1), present.flatten(0, 1)), atol=1e-6)
    assert torch.allclose(whole[1, 2], net(x[1, 2], present[1, 2]), atol=1e-6)
    assert net(x[:0], present[:0]).shape == (0, 3, 32)


def test_settings_have_their_effect_and_initial_weights_are_orthogonal():
    net = encoder(settings=ModelConfig(attention_size=12, attention_heads=3, attention_layers=4))
    assert (len(net.blocks), net.num_features, net.blocks[0].heads) == (4, 24, 3)
    block = net.blocks[0]
    residual = 8**-0.5  # two branches in each of four layers
    gains = {net.embed: 1.0, block.query: 1.0, block.attended: residual, block.widen: 2**0.5, block.narrow: residual}
    for layer, gain in gains.items():
        w = layer.weight.detach()
        gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        assert torch.allclose(gram, gain**2 * torch.eye(len(gram)), atol=1e-5)
        assert not layer.bias.any()
