"""Pixel decoder of kMaX-DeepLab (Yu et al., ECCV 2022, section 4.1): axial attention, bottlenecks.

From the coarsest feature to the finest: a stage of residual blocks, enlarged and added to the next
feature. Axial attention sees whole columns and rows at the two coarsest strides.
"""

import math

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from timm.layers import LayerNorm2d
from torch import nn

from ..layers.conv_norm import ConvNorm, resize_aligned
from ..layers.residual_blocks import EXPANSION, AxialBlock, Bottleneck
from ..registry import PIXEL_DECODERS
from ..structures import PixelFeatures
from .input_features import channels_of, check_names

AXIAL_STAGES = 2


class Fuse(nn.Module):
    """Sum of a coarse map, enlarged, and a fine one."""

    def __init__(self, low_channels: int, high_channels: int, channels: int) -> None:
        super().__init__()
        self.low = ConvNorm(low_channels, channels)
        self.high = ConvNorm(high_channels, channels)

    def forward(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """``low`` (N, C_l, h, w) and ``high`` (N, C_h, h', w') to (N, C, h', w')."""
        coarse = resize_aligned(self.low(F.gelu(low)), (high.shape[2], high.shape[3]))
        return coarse + self.high(F.gelu(high))


@PIXEL_DECODERS.register()
class AxialPixelDecoder(nn.Module):
    """A stage of blocks at every stride, the coarser ones handed on as levels."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        in_features: list[str],
        blocks: list[int],
        width: int,
        heads: int = 8,
        drop_path: float = 0.0,
    ) -> None:
        """``in_features`` are names in ``input_shape``, fine to coarse, at least two.

        ``blocks`` are counted coarse to fine; ``width`` is that of the coarsest stage and halved
        at each of the next. ValueError names the key that does not fit.
        """
        super().__init__()
        check_names(in_features, input_shape)
        check_stages(len(in_features), blocks, width, heads)
        self.names = in_features[::-1]
        channels = [channels_of(input_shape, name) for name in self.names]
        widths = [width >> i for i in range(len(blocks))]
        inputs, outputs = [channels[0], *widths[1:]], [EXPANSION * w for w in widths]
        self.level_channels = outputs[:-1]
        self.in_norms = nn.ModuleList(LayerNorm2d(c) for c in channels)
        self.fuses = nn.ModuleList(
            Fuse(low, high, w)
            for low, high, w in zip(outputs, channels[1:], widths[1:], strict=False)
        )
        self.stages = nn.ModuleList(
            _stage(c, w, count, heads if i < AXIAL_STAGES else None, drop_path)
            for i, (c, w, count) in enumerate(zip(inputs, widths, blocks, strict=True))
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Arguments from ``MODEL.MASK_TRANSFORMER.PIXEL_DECODER``."""
        part = cfg.MODEL.MASK_TRANSFORMER.PIXEL_DECODER
        return {
            "input_shape": input_shape,
            "in_features": list(part.IN_FEATURES),
            "blocks": list(part.BLOCKS),
            "width": part.WIDTH,
            "heads": part.HEADS,
            "drop_path": part.DROP_PATH_RATE,
        }

    def forward(self, features: dict[str, torch.Tensor]) -> PixelFeatures:
        """Backbone features (N, C_l, h_l, w_l), of any sizes, to mask features and levels."""
        coarsest, *finer = (
            norm(features[name]) for name, norm in zip(self.names, self.in_norms, strict=True)
        )
        first, *later = self.stages
        outputs = [first(coarsest)]
        for feature, fuse, stage in zip(finer, self.fuses, later, strict=True):
            outputs.append(stage(fuse(outputs[-1], feature)))
        return PixelFeatures(outputs[-1], outputs[:-1])


def _stage(
    in_channels: int, width: int, blocks: int, heads: int | None, drop_path: float
) -> nn.Sequential:
    """Axial blocks if there are ``heads``, else bottlenecks."""
    channels = [in_channels] + [EXPANSION * width] * (blocks - 1)
    if heads is None:
        return nn.Sequential(*(Bottleneck(c, width, drop_path=drop_path) for c in channels))
    return nn.Sequential(*(AxialBlock(c, width, heads, drop_path=drop_path) for c in channels))


def check_stages(strides: int, blocks: list[int], width: int, heads: int) -> None:
    """ValueError names the key that does not fit the ``strides``."""
    key = "MODEL.MASK_TRANSFORMER.PIXEL_DECODER."
    if len(blocks) != strides or min(blocks) < 1:
        raise ValueError(
            f"{key}BLOCKS {blocks} must have one positive number for each of the {strides} "
            f"features of {key}IN_FEATURES"
        )
    factor = math.lcm(2 ** (strides - 1), heads << (AXIAL_STAGES - 1))
    if width % factor:
        raise ValueError(
            f"{key}WIDTH is {width}, which is halved at each of {strides} strides and shared by "
            f"{heads} heads: it must be a multiple of {factor}"
        )
