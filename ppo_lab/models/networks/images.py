"""Convolutional encoders: images of any size and either channel layout -> features."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from ppo_lab.config import ModelConfig
from ppo_lab.errors import ConfigError

IMPALA = (16, 32, 32)  # channels of the three stages of Espeholt et al. 2018, figure 3 right
IMPALA_SMALLEST = 2 ** len(IMPALA)  # every stage halves the image


@final
class ImageEncoder(nn.Module):
    """A stack of layers over images, with flattened output: (*batch, *shape) -> (*batch, num_features).

    shape: (H, W), (C, H, W) or (H, W, C), as `channels` says. The stack gets (M, C, H, W), so the same image gives the
    same features in either layout.
    """

    def __init__(self, shape: tuple[int, ...], channels: str, stack: nn.Sequential) -> None:
        super().__init__()
        self.rank = len(shape)
        self.last = self.rank == 3 and channels_last(shape, channels)
        self.stack = stack
        with torch.no_grad():
            self.num_features = stack(torch.zeros(1, *as_chw(shape, channels))).numel()

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (*batch, *shape) as (*batch, num_features)."""
        batch = images.shape[: images.dim() - self.rank]
        x = images.reshape(math.prod(batch), *images.shape[images.dim() - self.rank :])  # (M, *shape)
        if self.rank == 2:
            x = x.unsqueeze(1)  # (M, 1, H, W)
        elif self.last:
            x = x.permute(0, 3, 1, 2)  # (M, C, H, W), a view: convolutions are as fast with this memory layout
        return self.stack(x).reshape(*batch, self.num_features)


def plain_cnn(shape: tuple[int, ...], config: ModelConfig) -> ImageEncoder:
    """Make an encoder from the convolutions in `config.convolutions`, with a ReLU after each.

    By default those of Mnih et al. 2015 (DQN): 84 x 84 pixels become 7 x 7 x 64 = 3136 features. Raises ConfigError for
    images that are too small for the last convolution: below 36 x 36 by default.
    """
    num_channels, height, width = as_chw(shape, config.channels)
    smallest = 1
    for _, kernel, stride in reversed(config.convolutions):
        smallest = (smallest - 1) * stride + kernel
    _check_size("cnn", shape, (height, width), smallest)
    layers: list[nn.Module] = []
    for width_out, kernel, stride in config.convolutions:
        layers += [conv(num_channels, width_out, kernel, stride), nn.ReLU()]
        num_channels = width_out
    return ImageEncoder(shape, config.channels, nn.Sequential(*layers))


def small_cnn(shape: tuple[int, ...], config: ModelConfig) -> ImageEncoder:
    """Make an encoder for boards and small grids of any size.

    Two 3x3 convolutions that keep the size, with 16 and 32 channels and a ReLU after each.
    """
    num_channels, _, _ = as_chw(shape, config.channels)
    stack = nn.Sequential(
        conv(num_channels, 16, 3, padding=1), nn.ReLU(), conv(16, 32, 3, padding=1), nn.ReLU()
    )  # (M, 32, H, W)
    return ImageEncoder(shape, config.channels, stack)


def impala_cnn(shape: tuple[int, ...], config: ModelConfig) -> ImageEncoder:
    """Make the residual network of IMPALA (Espeholt et al. 2018).

    Three stages of a convolution, a max-pool that halves the image, and two residual blocks; 16, 32 and 32 channels.
    84 x 84 pixels become 11 x 11 x 32 = 3872 features. Raises ConfigError for images below 8 x 8.
    """
    num_channels, height, width = as_chw(shape, config.channels)
    _check_size("impala", shape, (height, width), IMPALA_SMALLEST)
    # 2 blocks per stage, each adding its share of the variance: all blocks together increase it about e times. With
    # gain sqrt(2) it would grow 2 ** 6 times, and a tanh layer on top would saturate at +-1
    gain = (2 / (2 * len(IMPALA))) ** 0.5
    layers: list[nn.Module] = []
    for width_out in IMPALA:
        # gain 1: no ReLU has set the negative half of the input to 0
        layers += [conv(num_channels, width_out, 3, padding=1, gain=1.0), nn.MaxPool2d(3, stride=2, padding=1)]
        layers += [ResidualBlock(width_out, gain), ResidualBlock(width_out, gain)]
        num_channels = width_out
    return ImageEncoder(shape, config.channels, nn.Sequential(*layers, nn.ReLU()))


@final
class ResidualBlock(nn.Module):
    """A residual block, x + conv(relu(conv(relu(x)))) with 3x3 convolutions: (M, C, H, W) -> (M, C, H, W).

    gain: of the second convolution.
    """

    def __init__(self, num_channels: int, gain: float) -> None:
        super().__init__()
        self.first = conv(num_channels, num_channels, 3, padding=1)
        self.second = conv(num_channels, num_channels, 3, padding=1, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (M, C, H, W) -> (M, C, H, W)."""
        return x + self.second(torch.relu(self.first(torch.relu(x))))


def conv(
    num_inputs: int, num_outputs: int, kernel: int, stride: int = 1, padding: int = 0, gain: float = 2**0.5
) -> nn.Conv2d:
    """Make a convolution with bias 0 whose weight, as a matrix (out, in * kernel^2), is orthogonal times `gain`."""
    layer = nn.Conv2d(num_inputs, num_outputs, kernel, stride, padding)
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def channels_last(shape: tuple[int, ...], channels: str) -> bool:
    """Return whether an image of rank 3 is (H, W, C). "auto": if its last dimension is smaller than its first."""
    return channels == "last" or (channels == "auto" and shape[-1] < shape[0])


def as_chw(shape: tuple[int, ...], channels: str) -> tuple[int, int, int]:
    """Return (C, H, W) for an image of this shape; (H, W) has one channel. Raise ConfigError for any other rank."""
    if len(shape) == 2:
        return 1, *shape
    if len(shape) != 3:
        raise ConfigError(
            f"model.body: convolutions take images (H, W), (C, H, W) or (H, W, C), got {shape}; "
            "use mlp, or a wrapper that turns stacked frames into channels"
        )
    return (shape[2], *shape[:2]) if channels_last(shape, channels) else shape


def _check_size(body: str, shape: tuple[int, ...], size: tuple[int, int], smallest: int) -> None:
    if min(size) < smallest:
        raise ConfigError(
            f"model.body: {body} needs images of at least {smallest} x {smallest}, got {size[0]} x {size[1]} "
            f"(image shape {shape}; model.channels sets which dimension holds the channels); use cnn_small"
        )
