"""Masked-attention decoder of Mask2Former (section 3.2).

The idea is in ``MaskedAttentionDecoder._foreground``: every layer looks only where the previous
prediction saw its mask. Mask logits are linear in the pixel features, so that prediction is
computed on features resized once per level, not on full-resolution masks of every layer.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import nn

from ..heads import predict_masks
from ..layers.attention import MultiHeadAttention
from ..layers.feed_forward import feed_forward
from ..layers.mlp import MLP
from ..layers.position_encoding import token_positions
from ..registry import TRANSFORMER_DECODERS
from ..structures import PixelFeatures

Prediction = tuple[torch.Tensor, torch.Tensor]  # class logits (N, Q, K+1), embedding (N, Q, C)


class MaskedAttentionLayer(nn.Module):
    """Masked cross-attention, then self-attention, then feed-forward; post-norm, no dropout."""

    def __init__(self, dim: int, heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.cross_attn = MultiHeadAttention(dim, heads)
        self.cross_norm = nn.LayerNorm(dim)
        self.self_attn = MultiHeadAttention(dim, heads)
        self.self_norm = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self,
        query: torch.Tensor,
        query_position: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attend: torch.Tensor | None,
    ) -> torch.Tensor:
        """``query`` (N, Q, C) looks at ``value`` (N, L, C) where ``attend`` (N, Q, L) is True."""
        seen = self.cross_attn(query + query_position, key, value, attend)
        query = self.cross_norm(query + seen)
        positioned = query + query_position
        query = self.self_norm(query + self.self_attn(positioned, positioned, query))
        return self.ffn_norm(query + feed_forward(query, self.linear1, self.linear2))


@TRANSFORMER_DECODERS.register()
class MaskedAttentionDecoder(nn.Module):
    """Learned queries that visit the levels, coarse to fine, in a round robin."""

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        queries: int,
        dim: int,
        mask_dim: int,
        levels: int,
        layers: int,
        heads: int,
        ffn_dim: int,
        masked: bool = True,
    ) -> None:
        """``layers`` counts the layers; predictions are one more, from the raw queries.

        With ``masked`` False every query looks everywhere: plain cross-attention, the paper's
        ablation (section 4.3).
        """
        super().__init__()
        self.masked = masked
        self.query_feat = nn.Embedding(queries, dim)
        self.query_embed = nn.Embedding(queries, dim)
        self.level_embed = nn.Embedding(levels, dim)
        self.layers = nn.ModuleList(
            MaskedAttentionLayer(dim, heads, ffn_dim) for _ in range(layers)
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.class_embed = nn.Linear(dim, num_classes + 1)
        self.mask_embed = MLP(dim, dim, mask_dim, 3)

    @classmethod
    def from_config(cls, cfg: CfgNode, level_channels: Sequence[int]) -> dict:
        """Arguments from ``MODEL.MASK_TRANSFORMER``; ``level_channels``: see ``registry.py``."""
        node = cfg.MODEL.MASK_TRANSFORMER
        part = node.TRANSFORMER_DECODER
        if any(channels != node.HIDDEN_DIM for channels in level_channels):
            raise ValueError(
                f"MODEL.MASK_TRANSFORMER.TRANSFORMER_DECODER.NAME {part.NAME!r} needs levels of "
                f"width HIDDEN_DIM {node.HIDDEN_DIM}, but PIXEL_DECODER.NAME "
                f"{node.PIXEL_DECODER.NAME!r} gives {list(level_channels)}"
            )
        return {
            "num_classes": node.NUM_CLASSES,
            "queries": node.QUERIES,
            "dim": node.HIDDEN_DIM,
            "mask_dim": node.MASK_DIM,
            "levels": len(level_channels),
            "layers": part.LAYERS,
            "heads": part.HEADS,
            "ffn_dim": part.FFN_DIM,
            "masked": part.MASKED,
        }

    def forward(self, pixels: PixelFeatures) -> list[Prediction]:
        """Class logits (N, Q, K+1) and mask embedding (N, Q, C) per layer, the last one last."""
        keys, values, thumbnails = self._prepare_levels(pixels)
        batch = len(pixels.mask_features)
        query = self.query_feat.weight.expand(batch, -1, -1)
        position = self.query_embed.weight.expand(batch, -1, -1)
        predictions = [self._predict(query)]
        for index, layer in enumerate(self.layers):
            level = index % len(keys)
            attend = None
            if self.masked:
                attend = self._foreground(predictions[-1][1], thumbnails[level])
            query = layer(query, position, keys[level], values[level], attend)
            predictions.append(self._predict(query))
        return predictions

    def _prepare_levels(self, pixels: PixelFeatures):
        keys, values, thumbnails = [], [], []
        for level, embed in zip(pixels.levels, self.level_embed.weight, strict=True):
            value = level.flatten(2).transpose(1, 2) + embed  # (N, L, C)
            height, width = level.shape[-2:]
            keys.append(value + token_positions(height, width, value.shape[-1], value.device))
            values.append(value)
            thumbnails.append(_resize_detached(pixels.mask_features, (height, width)))
        return keys, values, thumbnails

    def _predict(self, query: torch.Tensor) -> Prediction:
        query = self.decoder_norm(query)
        return self.class_embed(query), self.mask_embed(query)

    @torch.no_grad()
    def _foreground(self, embedding: torch.Tensor, thumbnail: torch.Tensor) -> torch.Tensor:
        """Where each query saw its mask (sigmoid ≥ 0.5); everywhere, if that is nowhere (eq. 3)."""
        attend = predict_masks(embedding, thumbnail).flatten(2) >= 0  # (N, Q, L)
        return attend | ~attend.any(-1, keepdim=True)


@torch.no_grad()
def _resize_detached(features: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)
