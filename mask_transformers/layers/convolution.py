"""Convolutions of the pixel decoders, initialised as published."""

from detectron2.layers import Conv2d
from torch import nn

GROUPS = 32  # of the group norms


def conv_norm(in_channels: int, out_channels: int, kernel: int) -> Conv2d:
    """Convolution that keeps the size, without bias, then group norm."""
    norm = nn.GroupNorm(GROUPS, out_channels)
    padding = kernel // 2
    conv = Conv2d(in_channels, out_channels, kernel, padding=padding, bias=False, norm=norm)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return conv


def biased_conv(in_channels: int, out_channels: int, kernel: int) -> nn.Conv2d:
    """Convolution that keeps the size, with a bias that starts at zero."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
