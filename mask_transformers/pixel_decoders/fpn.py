"""Pixel decoder of MaskFormer (section 3.3 and 4.1): a light feature pyramid with group norm."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import nn

from ..layers.convolution import biased_conv, conv_norm
from ..registry import PIXEL_DECODERS
from ..structures import PixelFeatures
from .input_features import channels_of, check_features


class FeaturePyramid(nn.Module):
    """From coarse to fine: a 3×3 convolution, upsampling, and the sum with the next finer map."""

    def __init__(self, channels: Sequence[int], coarse_channels: int, dim: int) -> None:
        """``channels`` of the finer maps, fine to coarse; ``coarse_channels`` of the coarsest."""
        super().__init__()
        self.lateral = nn.ModuleList(conv_norm(c, dim, 1) for c in channels)
        outputs = [conv_norm(dim, dim, 3) for _ in channels]
        self.output = nn.ModuleList([*outputs, conv_norm(coarse_channels, dim, 3)])

    def forward(self, fine: Sequence[torch.Tensor], coarse: torch.Tensor) -> torch.Tensor:
        """Maps fine to coarse (N, C_l, h_l, w_l), and the coarsest: (N, C, h, w) of the finest."""
        y = self.output[-1](coarse).relu_()
        for level in reversed(range(len(fine))):
            lateral = self.lateral[level](fine[level])
            # Nearest, as published.
            y = lateral + F.interpolate(y, size=lateral.shape[-2:], mode="nearest")
            y = self.output[level](y).relu_()
        return y


@PIXEL_DECODERS.register()
class FPNPixelDecoder(nn.Module):
    """The pyramid; the transformer decoder looks at the coarsest backbone feature as it is."""

    @configurable
    def __init__(
        self, input_shape: dict[str, ShapeSpec], *, in_features: list[str], dim: int, mask_dim: int
    ) -> None:
        """``in_features`` are names in ``input_shape``, fine to coarse, at least two."""
        super().__init__()
        check_features(in_features, input_shape, dim)
        *self.fine, self.coarse = in_features
        coarse = channels_of(input_shape, self.coarse)
        self.level_channels = [coarse]
        channels = [channels_of(input_shape, name) for name in self.fine]
        self.pyramid = FeaturePyramid(channels, coarse, dim)
        self.mask_features = biased_conv(dim, mask_dim, 3)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Arguments from ``MODEL.MASK_TRANSFORMER``."""
        node = cfg.MODEL.MASK_TRANSFORMER
        return {
            "input_shape": input_shape,
            "in_features": list(node.PIXEL_DECODER.IN_FEATURES),
            "dim": node.HIDDEN_DIM,
            "mask_dim": node.MASK_DIM,
        }

    def forward(self, features: dict[str, torch.Tensor]) -> PixelFeatures:
        """Backbone features (N, C_l, h_l, w_l) to mask features and one level."""
        coarse = features[self.coarse]
        pixels = self.pyramid([features[name] for name in self.fine], coarse)
        return PixelFeatures(pixels, [coarse], self.mask_features)
