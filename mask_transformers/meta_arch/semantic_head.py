"""The auxiliary semantic heads of MaX-DeepLab and kMaX-DeepLab; only the loss looks at them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ..layers.aspp import ASPP
from ..layers.conv_norm import ConvNorm, resize_aligned

Activation = Callable[[torch.Tensor], torch.Tensor]
Resize = Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]


class _Fusion(nn.Module):
    """Upsample, join a finer feature, one separable convolution."""

    def __init__(
        self, dim: int, fine_channels: int, fine_dim: int, act: Activation, resize: Resize
    ) -> None:
        super().__init__()
        self.resize = resize
        joined = dim + fine_dim
        self.project = ConvNorm(fine_channels, fine_dim, activation=act)
        self.depthwise = ConvNorm(joined, joined, 5, groups=joined, activation=act)
        self.pointwise = ConvNorm(joined, dim, activation=act)

    def forward(self, x: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        fine = self.project(fine)
        x = torch.cat([self.resize(x, (fine.shape[-2], fine.shape[-1])), fine], dim=1)
        return self.pointwise(self.depthwise(x))


class _PixelClassifier(nn.Module):
    """One separable convolution and the classes."""

    def __init__(
        self, channels: int, num_classes: int, *, dim: int, activation: Activation
    ) -> None:
        super().__init__()
        self.depthwise = ConvNorm(channels, channels, 5, groups=channels, activation=activation)
        self.pointwise = ConvNorm(channels, dim, activation=activation)
        self.classes = nn.Conv2d(dim, num_classes + 1, 1)
        nn.init.trunc_normal_(self.classes.weight, std=0.01)
        assert self.classes.bias is not None
        nn.init.zeros_(self.classes.bias)

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        """Features (N, C, h, w) to class logits (N, K+1, h, w)."""
        return self.classes(self.pointwise(self.depthwise(x)))


class SemanticHead(_PixelClassifier):
    """Classes of pixels from the backbone alone, by a decoder as in DeepLab v3+."""

    def __init__(
        self,
        channels: tuple[int, int, int],
        num_classes: int,
        *,
        dim: int = 256,
        activation: Activation = F.gelu,
        resize: Resize = resize_aligned,
    ) -> None:
        """``channels`` of the coarse features and of those with stride 8 and 4."""
        super().__init__(dim, num_classes, dim=dim, activation=activation)
        self.aspp = ASPP(channels[0], dim, activation=activation)
        self.fuse8 = _Fusion(dim, channels[1], 64, activation, resize)
        self.fuse4 = _Fusion(dim, channels[2], 32, activation, resize)

    def forward(
        self, coarse: torch.Tensor, middle: torch.Tensor, fine: torch.Tensor
    ) -> torch.Tensor:
        """Coarse features and those with stride 8 and 4 to logits (N, K+1, h, w) at stride 4."""
        return self.classify(self.fuse4(self.fuse8(self.aspp(coarse), middle), fine))


class DecodedSemanticHead(_PixelClassifier):
    """Classes of pixels from features with stride 4 that a decoder has made (MaX-DeepLab-L)."""

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        dim: int = 256,
        activation: Activation = F.gelu,
    ) -> None:
        """``channels`` of the features."""
        super().__init__(channels, num_classes, dim=dim, activation=activation)

    def forward(self, decoded: torch.Tensor) -> torch.Tensor:
        """Features to class logits (N, K+1, h, w) of the same size."""
        return self.classify(decoded)
