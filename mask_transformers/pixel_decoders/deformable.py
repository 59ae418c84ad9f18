"""Pixel decoder of Mask2Former (section 3.2.2): deformable attention over strides 32, 16, 8."""

import functools

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import nn

from ..layers.convolution import GROUPS, biased_conv, conv_norm
from ..layers.deformable_attention import DeformableAttention, Sizes, grid_centres
from ..layers.feed_forward import feed_forward
from ..layers.position_encoding import sine_position_encoding
from ..registry import PIXEL_DECODERS
from ..structures import PixelFeatures
from .input_features import channels_of, check_features


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, post-norm."""

    def __init__(self, dim: int, heads: int, levels: int, points: int, ffn_dim: int) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(dim, heads, levels, points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self, tokens: torch.Tensor, position: torch.Tensor, centres: torch.Tensor, sizes: Sizes
    ) -> torch.Tensor:
        """``tokens`` (N, L, C) to the same shape; ``position`` (1, L, C) enters the query only."""
        tokens = self.norm1(tokens + self.self_attn(tokens + position, tokens, centres, sizes))
        return self.norm2(tokens + feed_forward(tokens, self.linear1, self.linear2))


@PIXEL_DECODERS.register()
class DeformablePixelDecoder(nn.Module):
    """Encoder over the coarse levels, then one FPN step to the finest level."""

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
        points: int,
        ffn_dim: int,
    ) -> None:
        """``in_features`` are names in ``input_shape``, fine to coarse, at least two."""
        super().__init__()
        check_features(in_features, input_shape, dim)
        self.fine, *levels = in_features
        self.level_channels = [dim] * len(levels)
        self.level_names = levels[::-1]  # coarse first
        self.input_proj = nn.ModuleList(
            _projection(channels_of(input_shape, name), dim) for name in self.level_names
        )
        self.level_embed = nn.Parameter(torch.empty(len(levels), dim))
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(dim, heads, len(levels), points, ffn_dim) for _ in range(layers)
        )
        self.lateral = conv_norm(channels_of(input_shape, self.fine), dim, 1)
        self.output = conv_norm(dim, dim, 3)
        self.mask_features = biased_conv(dim, mask_dim, 1)
        nn.init.normal_(self.level_embed)

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
            "points": part.POINTS,
            "ffn_dim": part.FFN_DIM,
        }

    def forward(self, features: dict[str, torch.Tensor]) -> PixelFeatures:
        """Backbone features (N, C_l, h_l, w_l) to mask features and levels, all of width C."""
        # Sampling places need more digits than half precision has.
        with torch.autocast(self.level_embed.device.type, enabled=False):
            maps = [
                projection(features[name].float())
                for name, projection in zip(self.level_names, self.input_proj, strict=True)
            ]
            sizes = tuple((m.shape[2], m.shape[3]) for m in maps)
            levels = self._encode(maps, sizes)
            fine = self.lateral(features[self.fine].float())
            fine = fine + F.interpolate(
                levels[-1], size=fine.shape[-2:], mode="bilinear", align_corners=False
            )
            return PixelFeatures(self.mask_features(self.output(fine).relu_()), levels)

    def _encode(self, maps: list[torch.Tensor], sizes: Sizes) -> list[torch.Tensor]:
        tokens = torch.cat([m.flatten(2) for m in maps], 2).transpose(1, 2)  # (N, L, C)
        grid, centres = _positions(sizes, tokens.shape[-1], tokens.device)
        lengths = [h * w for h, w in sizes]
        level = torch.cat([e.expand(n, -1) for e, n in zip(self.level_embed, lengths, strict=True)])
        position = (grid + level).unsqueeze(0)  # (1, L, C)
        for layer in self.layers:
            tokens = layer(tokens, position, centres, sizes)
        parts = tokens.transpose(1, 2).split(lengths, 2)
        return [part.unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]


@functools.lru_cache(maxsize=8)
def _positions(sizes: Sizes, dim: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Position encodings (L, C) and pixel centres (L, levels, 2) of all levels."""
    grids = [sine_position_encoding(h, w, dim, device) for h, w in sizes]
    return torch.cat([g[0].flatten(1).T for g in grids]), grid_centres(sizes, device)


def _projection(in_channels: int, dim: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, dim, 1)
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, dim))
