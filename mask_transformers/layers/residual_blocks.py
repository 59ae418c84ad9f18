"""Residual blocks of MaX-DeepLab and kMaX-DeepLab: with convolutions or with axial attention.

A block activates what it receives and not what it gives: sums of branches stay as they are.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import nn

from .axial_attention import AxialAttention
from .conv_norm import ConvNorm

EXPANSION = 4  # output channels of a block by its width

Activation = Callable[[torch.Tensor], torch.Tensor]


class ResidualBlock(nn.Module):
    """Activation, a branch, and a shortcut: a convolution where channels or size change."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        drop_path: float = 0.0,
        activation: Activation = F.gelu,
    ) -> None:
        super().__init__()
        self.activation = activation
        same = in_channels == out_channels and stride == 1
        self.shortcut = (
            nn.Identity() if same else ConvNorm(in_channels, out_channels, stride=stride)
        )
        self.drop_path = DropPath(drop_path)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """What is added to the shortcut, (N, C, h, w) to (N, C', h', w')."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) to (N, C', h', w')."""
        x = self.activation(x)
        return self.drop_path(self.branch(x)) + self.shortcut(x)


class BasicBlock(ResidualBlock):
    """Two 3×3 convolutions, as in wide ResNets; the stride is in the first."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        drop_path: float = 0.0,
        activation: Activation = F.gelu,
    ) -> None:
        super().__init__(
            in_channels, out_channels, stride=stride, drop_path=drop_path, activation=activation
        )
        self.conv1 = ConvNorm(in_channels, out_channels, 3, stride=stride, activation=activation)
        self.conv2 = ConvNorm(out_channels, out_channels, 3, scale=0.0)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels see their neighbours, twice."""
        return self.conv2(self.conv1(x))


class Bottleneck(ResidualBlock):
    """Pixels see their neighbours, in fewer channels."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int = 1,
        drop_path: float = 0.0,
        activation: Activation = F.gelu,
    ) -> None:
        """Gives 4 · ``width`` channels; the stride is in the 3×3 convolution."""
        out_channels = EXPANSION * width
        super().__init__(
            in_channels, out_channels, stride=stride, drop_path=drop_path, activation=activation
        )
        self.conv1 = ConvNorm(in_channels, width, activation=activation)
        self.conv2 = ConvNorm(width, width, 3, stride=stride, activation=activation)
        self.conv3 = ConvNorm(width, out_channels, scale=0.0)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """1×1, 3×3 and 1×1 convolution."""
        return self.conv3(self.conv2(self.conv1(x)))


class AxialBlock(ResidualBlock):
    """Pixels see their column and row."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        heads: int = 8,
        *,
        expansion: int = EXPANSION,
        drop_path: float = 0.0,
        activation: Activation = F.gelu,
    ) -> None:
        """Keys have ``width`` channels, values twice as many, outputs ``expansion`` times."""
        out_channels = expansion * width
        super().__init__(in_channels, out_channels, drop_path=drop_path, activation=activation)
        self.conv1 = ConvNorm(in_channels, 2 * width, activation=activation)
        self.attention = AxialAttention(2 * width, width, 2 * width, heads)
        self.conv3 = ConvNorm(2 * width, out_channels, scale=0.0)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """1×1 convolution, axial attention, 1×1 convolution."""
        return self.conv3(self.activation(self.attention(self.conv1(x))))
