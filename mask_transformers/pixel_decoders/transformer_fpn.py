"""Pixel decoder of MaskFormer's panoptic models: DETR's encoder on the coarsest map, then FPN."""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import nn

from ..layers.convolution import biased_conv
from ..layers.pixel_grid import full_grid
from ..layers.transformer_layers import TransformerEncoder
from ..registry import PIXEL_DECODERS
from ..structures import PixelFeatures
from .fpn import FeaturePyramid
from .input_features import channels_of, check_features


@PIXEL_DECODERS.register()
class TransformerFPNPixelDecoder(nn.Module):
    """Self-attention over the coarsest feature; pyramid and decoder start from the result."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        in_features: list[str],
        dim: int,
        mask_dim: int,
        layers: int,
        heads: int,
        ffn_dim: int,
        dropout: float = 0.1,
    ) -> None:
        """``in_features`` are names in ``input_shape``, fine to coarse, at least two."""
        super().__init__()
        check_features(in_features, input_shape, dim)
        *self.fine, self.coarse = in_features
        self.level_channels = [dim]
        self.input_proj = biased_conv(channels_of(input_shape, self.coarse), dim, 1)
        self.layers = TransformerEncoder(dim, layers, heads, ffn_dim, dropout)
        channels = [channels_of(input_shape, name) for name in self.fine]
        self.pyramid = FeaturePyramid(channels, dim, dim)
        self.mask_features = biased_conv(dim, mask_dim, 3)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Arguments from ``MODEL.MASK_TRANSFORMER``."""
        node = cfg.MODEL.MASK_TRANSFORMER
        part = node.PIXEL_DECODER
        return {
            "input_shape": input_shape,
            "in_features": list(part.IN_FEATURES),
            "dim": node.HIDDEN_DIM,
            "mask_dim": node.MASK_DIM,
            "layers": part.LAYERS,
            "heads": part.HEADS,
            "ffn_dim": part.FFN_DIM,
            "dropout": part.DROPOUT,
        }

    def forward(self, features: dict[str, torch.Tensor]) -> PixelFeatures:
        """Backbone features (N, C_l, h_l, w_l) to mask features and one level, all of width C."""
        level = self.input_proj(features[self.coarse])
        level = self.layers(level, full_grid(level, level.shape[1]))
        pixels = self.pyramid([features[name] for name in self.fine], level)
        return PixelFeatures(pixels, [level], self.mask_features)
