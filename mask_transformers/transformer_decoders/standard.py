"""The transformer decoder of DETR (supplement, A.3) with the heads of MaskFormer (section 3.3)."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from torch import nn

from ..layers.convolution import biased_conv
from ..layers.mlp import MLP
from ..layers.pixel_grid import PixelGrid, full_grid
from ..layers.transformer_layers import DecoderLayer
from ..registry import TRANSFORMER_DECODERS
from ..structures import PixelFeatures


class QueryDecoder(nn.Module):
    """Learned positions of queries that start from nothing and look at one map of pixels."""

    def __init__(
        self,
        in_channels: int,
        *,
        queries: int,
        dim: int,
        layers: int,
        heads: int,
        ffn_dim: int,
        dropout: float = 0.1,
    ) -> None:
        """A map of another width than ``dim`` is projected to it first."""
        super().__init__()
        self.query_embed = nn.Embedding(queries, dim)
        same = in_channels == dim
        self.input_proj = nn.Identity() if same else biased_conv(in_channels, dim, 1)
        self.layers = nn.ModuleList(
            DecoderLayer(dim, heads, ffn_dim, dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, level: torch.Tensor, grid: PixelGrid | None = None) -> list[torch.Tensor]:
        """``level`` (N, C, h, w) to the queries (N, Q, C) after each layer.

        ``grid`` of the level; None for one without padding.
        """
        value = self.input_proj(level).flatten(2).transpose(1, 2)  # (N, L, C)
        grid = full_grid(level, value.shape[-1]) if grid is None else grid
        key = value + grid.position
        position = self.query_embed.weight.expand(len(value), -1, -1)  # (N, Q, C)
        query = torch.zeros_like(position)
        outputs = []
        for layer in self.layers:
            query = layer(query, position, key, value, grid.inside)
            outputs.append(self.norm(query))
        return outputs


@TRANSFORMER_DECODERS.register()
class StandardDecoder(nn.Module):
    """Queries that look at the coarsest level; each predicts a class and a mask embedding."""

    @configurable
    def __init__(self, decoder: QueryDecoder, *, num_classes: int, dim: int, mask_dim: int) -> None:
        """``dim`` is the width of the queries of ``decoder``."""
        super().__init__()
        self.decoder = decoder
        self.class_embed = nn.Linear(dim, num_classes + 1)
        self.mask_embed = MLP(dim, dim, mask_dim, 3)

    @classmethod
    def from_config(cls, cfg: CfgNode, level_channels: Sequence[int]) -> dict:
        """Arguments from ``MODEL.MASK_TRANSFORMER``; ``level_channels``: see ``registry.py``."""
        node = cfg.MODEL.MASK_TRANSFORMER
        return {
            "decoder": query_decoder(cfg, level_channels[0], node.QUERIES),
            "num_classes": node.NUM_CLASSES,
            "dim": node.HIDDEN_DIM,
            "mask_dim": node.MASK_DIM,
        }

    def forward(self, pixels: PixelFeatures) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Class logits (N, Q, K+1) and mask embedding (N, Q, C) per layer, the last one last."""
        queries = self.decoder(pixels.levels[0])
        return [(self.class_embed(query), self.mask_embed(query)) for query in queries]


def query_decoder(cfg: CfgNode, in_channels: int, queries: int) -> QueryDecoder:
    """The decoder that ``MODEL.MASK_TRANSFORMER`` describes, but for the number of queries."""
    node = cfg.MODEL.MASK_TRANSFORMER
    part = node.TRANSFORMER_DECODER
    return QueryDecoder(
        in_channels,
        queries=queries,
        dim=node.HIDDEN_DIM,
        layers=part.LAYERS,
        heads=part.HEADS,
        ffn_dim=part.FFN_DIM,
        dropout=part.DROPOUT,
    )
