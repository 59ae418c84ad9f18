"""Atrous spatial pyramid pooling (DeepLab v3, section 3.3)."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .conv_norm import ConvNorm


class ASPP(nn.Module):
    """Convolutions of several dilations and the mean of all pixels, side by side."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        rates: Sequence[int] = (6, 12, 18),
        activation: Callable[[torch.Tensor], torch.Tensor] = F.gelu,
    ) -> None:
        """``rates`` are the dilations of the 3×3 convolutions."""
        super().__init__()
        self.point = ConvNorm(in_channels, out_channels, activation=activation)
        self.dilated = nn.ModuleList(
            ConvNorm(in_channels, out_channels, 3, dilation=rate, activation=activation)
            for rate in rates
        )
        self.pool = ConvNorm(in_channels, out_channels, activation=activation)
        self.out = ConvNorm((2 + len(rates)) * out_channels, out_channels, activation=activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) to (N, C', h, w)."""
        mean = self.pool(x.mean((2, 3), keepdim=True))
        parts = [self.point(x), *(layer(x) for layer in self.dilated)]
        return self.out(torch.cat([*parts, mean.expand_as(parts[0])], dim=1))
