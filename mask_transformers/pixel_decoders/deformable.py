"""Pixel decoder of Mask2Former (section 3.2.2): deformable attention over strides 32, 16, 8."""

import functools

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from torch import nn

from ..layers.deformable_attention import DeformableAttention, Sizes, grid_centres
from ..layers.feed_forward import feed_forward
from ..layers.position_encoding import sine_position_encoding
from ..registry import PIXEL_DECODERS
from ..structures import PixelFeatures

GROUPS = 32  # of every group norm


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
        _check_features(in_features, input_shape, dim)
        self.fine, *levels = in_features
        self.level_names = levels[::-1]  # coarse first
        self.input_proj = nn.ModuleList(
            _projection(_channels(input_shape, name), dim) for name in self.level_names
        )
        self.level_embed = nn.Parameter(torch.empty(len(levels), dim))
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(dim, heads, len(levels), points, ffn_dim) for _ in range(layers)
        )
        self.lateral = _conv_norm(_channels(input_shape, self.fine), dim, 1)
        self.output = _conv_norm(dim, dim, 3)
        self.mask_features = nn.Conv2d(dim, mask_dim, 1)
        self._reset_parameters()

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

    def _reset_parameters(self) -> None:
        nn.init.normal_(self.level_embed)
        for conv in (self.lateral, self.output, self.mask_features):
            nn.init.kaiming_uniform_(conv.weight, a=1)
        assert self.mask_features.bias is not None
        nn.init.zeros_(self.mask_features.bias)

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


def _conv_norm(in_channels: int, out_channels: int, kernel: int) -> Conv2d:
    return Conv2d(
        in_channels,
        out_channels,
        kernel,
        padding=kernel // 2,
        bias=False,
        norm=nn.GroupNorm(GROUPS, out_channels),
    )


def _channels(input_shape: dict[str, ShapeSpec], name: str) -> int:
    channels = input_shape[name].channels
    assert channels is not None
    return channels


def _check_features(names: list[str], input_shape: dict[str, ShapeSpec], dim: int) -> None:
    key = "MODEL.MASK_TRANSFORMER.PIXEL_DECODER.IN_FEATURES"
    missing = [name for name in names if name not in input_shape]
    if missing:
        raise ValueError(f"{key} names {missing}, but the backbone gives {sorted(input_shape)}")
    strides = [input_shape[name].stride or 0 for name in names]
    if len(names) < 2 or strides != sorted(set(strides)):
        raise ValueError(f"{key} must name two or more features, fine to coarse, not {names}")
    if dim % GROUPS:
        raise ValueError(
            f"MODEL.MASK_TRANSFORMER.HIDDEN_DIM is {dim}; group norm needs a multiple of {GROUPS}"
        )
