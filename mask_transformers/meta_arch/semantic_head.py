"""The auxiliary semantic head of MaX-DeepLab and kMaX-DeepLab: a DeepLab v3+ decoder."""

import torch
import torch.nn.functional as F
from torch import nn

from ..layers.aspp import ASPP
from ..layers.conv_norm import ConvNorm, resize_aligned


class _Fusion(nn.Module):
    """Upsample, join a finer feature, one separable convolution."""

    def __init__(self, dim: int, fine_channels: int, fine_dim: int) -> None:
        super().__init__()
        joined = dim + fine_dim
        self.project = ConvNorm(fine_channels, fine_dim, activation=F.gelu)
        self.depthwise = ConvNorm(joined, joined, 5, groups=joined, activation=F.gelu)
        self.pointwise = ConvNorm(joined, dim, activation=F.gelu)

    def forward(self, x: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        fine = self.project(fine)
        x = torch.cat([resize_aligned(x, (fine.shape[-2], fine.shape[-1])), fine], dim=1)
        return self.pointwise(self.depthwise(x))


class SemanticHead(nn.Module):
    """Classes of pixels from the backbone alone; only the loss in training looks at them."""

    def __init__(self, channels: tuple[int, int, int], num_classes: int, *, dim: int = 256) -> None:
        """``channels`` of the features with stride 32, 8 and 4."""
        super().__init__()
        self.aspp = ASPP(channels[0], dim)
        self.fuse8 = _Fusion(dim, channels[1], 64)
        self.fuse4 = _Fusion(dim, channels[2], 32)
        self.depthwise = ConvNorm(dim, dim, 5, groups=dim, activation=F.gelu)
        self.pointwise = ConvNorm(dim, dim, activation=F.gelu)
        self.classes = nn.Conv2d(dim, num_classes + 1, 1)
        nn.init.trunc_normal_(self.classes.weight, std=0.01)
        assert self.classes.bias is not None
        nn.init.zeros_(self.classes.bias)

    def forward(
        self, coarse: torch.Tensor, middle: torch.Tensor, fine: torch.Tensor
    ) -> torch.Tensor:
        """Features with stride 32, 8 and 4 to class logits (N, K+1, h, w) at stride 4."""
        x = self.fuse4(self.fuse8(self.aspp(coarse), middle), fine)
        return self.classes(self.pointwise(self.depthwise(x)))
