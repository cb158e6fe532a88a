"""Tests of convolutions: the shapes of the papers, both layouts, any board size, and errors for small images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from torch import nn

from ppo_lab.config import ModelConfig
from ppo_lab.errors import ConfigError
from ppo_lab.models.networks import count_parameters
from ppo_lab.models.networks.images import ResidualBlock, conv, impala_cnn, plain_cnn, small_cnn

ENCODERS = {"cnn": plain_cnn, "cnn_small": small_cnn, "impala": impala_cnn}


def encoder(name, shape, channels="auto"):
    torch.manual_seed(0)
    return ENCODERS[name](shape, ModelConfig(channels=channels))


def convolutions(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize("shape", [(84, 84, 4), (4, 84, 84)])
def test_the_nature_cnn_has_the_shapes_of_the_reference(shape):
    net = encoder("cnn", shape)
    assert [(tuple(c.weight.shape), c.stride[0], c.padding[0]) for c in convolutions(net)] == [
        ((32, 4, 8, 8), 4, 0),
        ((64, 32, 4, 4), 2, 0),
        ((64, 64, 3, 3), 1, 0),
    ]
    assert net.num_features == 3136
    # 4*32*64 + 32, 32*64*16 + 64, 64*64*9 + 64
    assert count_parameters(net) == 8224 + 32832 + 36928
    hooked = []
    for layer in net.stack:
        layer.register_forward_hook(lambda _, __, out: hooked.append(tuple(out.shape[1:])))
    net(torch.zeros(1, *shape))
    assert hooked[::2] == [(32, 20, 20), (64, 9, 9), (64, 7, 7)]
    assert [type(layer) for layer in net.stack[1::2]] == [nn.ReLU] * 3


def test_layers_of_ones_own():
    layers = ((16, 4, 2), (32, 4, 2), (32, 3, 1))
    config = ModelConfig(convolutions=layers)
    net = plain_cnn((4, 42, 42), config)  # half the pixels and half the first kernel: the reference's feature maps
    assert [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions(net)] == list(layers)
    assert net.num_features == 32 * 7 * 7
    assert plain_cnn((4, 18, 18), config).num_features == 32
    with pytest.raises(ConfigError, match="at least 18 x 18, got 17 x 18"):
        plain_cnn((4, 17, 18), config)


def test_impala_has_the_shapes_of_the_reference():
    net = encoder("impala", (3, 84, 84))
    widths = [(16, 3), *[(16, 16)] * 4, (32, 16), *[(32, 32)] * 4, (32, 32), *[(32, 32)] * 4]
    assert [tuple(c.weight.shape) for c in convolutions(net)] == [(o, i, 3, 3) for o, i in widths]
    assert net.num_features == 32 * 11 * 11
    assert count_parameters(net) == sum(o * i * 9 + o for o, i in widths)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_same_picture_in_either_layout_gives_the_same_features(name):
    picture = torch.rand(3, 40, 36, 2)  # (M, H, W, C)
    last, first = encoder(name, (40, 36, 2)), encoder(name, (2, 40, 36))
    first.load_state_dict(last.state_dict())
    assert torch.allclose(last(picture), first(picture.permute(0, 3, 1, 2)), atol=1e-5)
    assert last(picture).std() > 0.01


def test_the_layout_can_be_said_where_it_cannot_be_guessed():
    board = (8, 8, 17)  # 17 planes: more than the board is wide
    assert convolutions(encoder("cnn_small", board, "last"))[0].in_channels == 17
    assert convolutions(encoder("cnn_small", board, "auto"))[0].in_channels == 8
    tie = torch.rand(2, 3, 5, 3)  # (C, H, W) then
    assert torch.equal(encoder("cnn_small", (3, 5, 3), "auto")(tie), encoder("cnn_small", (3, 5, 3), "first")(tie))
    assert not torch.equal(encoder("cnn_small", (3, 5, 3), "auto")(tie), encoder("cnn_small", (3, 5, 3), "last")(tie))
    assert encoder("cnn_small", (3, 5, 2), "first").num_features == 32 * 5 * 2


@pytest.mark.parametrize("shape", [(6, 7, 2), (2, 6, 7), (1, 1, 1), (5, 3), (13, 9, 4), (3, 3, 3), (7, 11)])
def test_boards_of_any_size(shape):
    net = encoder("cnn_small", shape)
    cells = np.prod(shape) / (1 if len(shape) == 2 else min(shape[0], shape[-1]))
    assert net(torch.rand(5, *shape)).shape == (5, net.num_features)
    assert net.num_features == 32 * cells
    assert [c.out_channels for c in convolutions(net)] == [16, 32]


def test_a_board_of_one_channel_equals_scipy():
    board = torch.rand(5, 4)
    net = encoder("cnn_small", (5, 4))
    x = board.numpy()[None].astype(np.float64)  # (C, H, W)
    for layer in convolutions(net):
        w = layer.weight.detach().double().numpy()
        # torch's convolution with padding 1 is a correlation with zeros around the image
        x = np.stack([sum(correlate2d(x[i], w[o, i], "same") for i in range(w.shape[1])) for o in range(w.shape[0])])
        x = np.maximum(x, 0.0)
    assert np.allclose(net(board[None])[0].detach().numpy(), x.ravel(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("cnn", (35, 84, 4)), ("cnn", (4, 84, 35)), ("cnn", (6, 7)), ("impala", (7, 7, 3)), ("impala", (3, 64, 7))],
)
def test_too_small_images_are_refused_with_the_way_out(name, shape):
    with pytest.raises(ConfigError, match=rf"model.body: {name} needs images of at least .*use cnn_small"):
        encoder(name, shape)


@pytest.mark.parametrize(("name", "size"), [("cnn", 36), ("impala", 8)])
def test_the_smallest_images_work(name, size):
    net = encoder(name, (size, size, 1))
    assert net(torch.rand(2, size, size, 1)).shape == (2, net.num_features)


def test_stacks_of_images_are_refused():
    with pytest.raises(ConfigError, match=r"got \(4, 84, 84, 3\)"):
        encoder("cnn", (4, 84, 84, 3))


@pytest.mark.parametrize("name", ENCODERS)
def test_any_leading_dimensions(name):
    net = encoder(name, (36, 37, 3))
    images = torch.rand(2, 3, 36, 37, 3)
    assert torch.allclose(net(images).flatten(0, 1), net(images.flatten(0, 1)), atol=1e-6)
    assert torch.allclose(net(images)[1, 2], net(images[1, 2]), rtol=1e-4, atol=1e-5)
    assert net(images[:0]).shape == (0, 3, net.num_features)


@pytest.mark.parametrize("name", ENCODERS)
def test_weights_are_orthogonal_as_matrices_and_biases_0(name):
    net = encoder(name, (40, 40, 3))
    # impala: gain 1 before a pool, where no ReLU came before; six branches that share the variance
    gains = {id(block.second): (1 / 3) ** 0.5 for block in net.modules() if isinstance(block, ResidualBlock)}
    if name == "impala":
        gains |= {id(layer): 1.0 for layer in net.stack if isinstance(layer, nn.Conv2d)}
    for layer in convolutions(net):
        w = layer.weight.detach().flatten(1)  # (out, in * kernel^2)
        gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        gain = gains.get(id(layer), 2**0.5)
        assert torch.allclose(gram, gain**2 * torch.eye(len(gram)), atol=1e-5)
        assert not layer.bias.any()


@pytest.mark.parametrize("name", ENCODERS)
def test_a_fresh_network_neither_kills_nor_explodes_its_input(name):
    net = encoder(name, (64, 64, 3))
    out = net(torch.rand(16, 64, 64, 3))
    assert 0.2 < out.pow(2).mean().sqrt() < 2.0
    assert out.min() == 0.0  # all of them end with a ReLU


def test_a_residual_block_without_its_branch_is_the_identity():
    block = ResidualBlock(4, gain=0.0)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x)
    assert not torch.equal(ResidualBlock(4, gain=1.0)(x), x)


def test_conv_counts_like_torch():
    assert conv(3, 8, 5, stride=2, padding=1)(torch.zeros(1, 3, 11, 11)).shape == (1, 8, 5, 5)
