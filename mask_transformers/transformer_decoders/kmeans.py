"""k-means cross-attention (kMaX-DeepLab, Yu et al., ECCV 2022).

Queries are cluster centres C (Q, D) of the pixels with keys K and values V (L, D). Cross-attention
updates them by a softmax over the pixels (section 3.2),

    C ← C + softmax_pixels(C·Kᵀ) V,

and k-means assigns every pixel to the one centre that it is most similar to, and then moves the
centres to their pixels,

    A = argmax_queries(C·Kᵀ),  C ← Aᵀ V.

Both are one step with another normalisation. So take the argmax over the queries in place of the
softmax over the pixels (section 3.3):

    C ← C + argmax_queries(C·Kᵀ) V.

The similarities are the mask logits of the layer: clusters are masks, and are supervised as such.
The assignment has no gradient.
"""

from collections.abc import Callable, Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from timm.layers import DropPath
from torch import nn

from ..layers.conv_norm import ConvNorm, LinearNorm, SyncNorm
from ..layers.normed_attention import NormedAttention
from ..registry import TRANSFORMER_DECODERS
from ..structures import DensePrediction, PixelFeatures
from .mask_predictor import MaskPredictor


def kmeans_update(similarity: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Sum of the ``values`` (N, D, h, w) of each query's pixels, (N, D, Q).

    ``similarity`` (N, Q, h, w): each pixel goes to the query where it is largest, the first of
    equal ones. A sum over segments, in time and memory of the values alone, however many queries
    there are; in full precision, as half of it does not reach the sum of thousands of pixels.
    """
    images, queries = similarity.shape[:2]
    assignment = similarity.detach().argmax(1).flatten(1)  # (N, L)
    first = torch.arange(images, device=assignment.device)[:, None] * queries
    rows = values.flatten(2).transpose(1, 2).flatten(0, 1)  # (N·L, D)
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    sums = rows.new_zeros(images * queries, rows.shape[1])
    sums = sums.index_add(0, (assignment + first).flatten(), rows)
    return sums.unflatten(0, (images, queries)).transpose(1, 2)


def softmax_update(similarity: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Mean of all values by a softmax over the pixels: cross-attention, the ablation."""
    weights = similarity.flatten(2).softmax(-1)
    return torch.einsum("nql,ndl->ndq", weights, values.flatten(2))


CrossAttention = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
CROSS_ATTENTION: dict[str, CrossAttention] = {"kmeans": kmeans_update, "softmax": softmax_update}


class KMeansLayer(nn.Module):
    """Predict, update the centres by the prediction, let them look at each other, transform."""

    def __init__(
        self,
        pixel_channels: int,
        dim: int,
        num_classes: int,
        *,
        mask_dim: int,
        heads: int,
        ffn_dim: int,
        mask_scale: float = 0.1,
        drop_path: float = 0.0,
        cross_attention: CrossAttention = kmeans_update,
    ) -> None:
        """Centres have the width ``dim``; keys of the self-attention have half of it."""
        super().__init__()
        self.cross_attention = cross_attention
        self.splits = [dim // 2, dim // 2, dim]
        self.pixel_in = ConvNorm(pixel_channels, dim, activation=F.gelu)
        self.query_in = LinearNorm(dim, dim, activation=F.gelu)
        self.predictor = MaskPredictor(
            dim, dim, num_classes, mask_dim=mask_dim, mask_scale=mask_scale
        )
        self.pixel_value = ConvNorm(dim, dim)
        self.kmeans_norm = SyncNorm(dim)
        self.kmeans_out = LinearNorm(dim, dim, scale=0.0)
        self.query_qkv = LinearNorm(dim, sum(self.splits))
        self.self_attention = NormedAttention(heads, dim)
        self.query_out = LinearNorm(dim, dim, scale=0.0)
        self.ffn_in = LinearNorm(dim, ffn_dim, activation=F.gelu)
        self.ffn_out = LinearNorm(ffn_dim, dim, scale=0.0)
        self.drop_path = DropPath(drop_path)
        nn.init.trunc_normal_(self.query_qkv.conv.weight, std=dim**-0.5)
        nn.init.trunc_normal_(self.pixel_value.conv.weight, std=dim**-0.5)

    def forward(
        self, centers: torch.Tensor, pixels: torch.Tensor
    ) -> tuple[torch.Tensor, DensePrediction]:
        """Updated ``centers`` (N, D, Q), and what they predicted in ``pixels`` (N, C, h, w)."""
        space = self.pixel_in(F.gelu(pixels))
        query = self.query_in(centers)
        prediction = self.predictor(query, query, space)
        update = self.cross_attention(prediction.mask_logits, self.pixel_value(space))
        centers = centers + self.drop_path(self.kmeans_out(self.kmeans_norm(update)))
        # Of the centres before the update, as published.
        q, k, v = self.query_qkv(query).split(self.splits, dim=1)
        seen = self.query_out(self.self_attention(q, k, v))
        centers = F.gelu(centers + self.drop_path(seen))
        hidden = self.ffn_out(self.ffn_in(centers))
        return F.gelu(centers + self.drop_path(hidden)), prediction


@TRANSFORMER_DECODERS.register()
class KMeansDecoder(nn.Module):
    """Layers from the coarsest level to the finest, then a prediction in the mask features."""

    @configurable
    def __init__(
        self,
        level_channels: Sequence[int],
        *,
        num_classes: int,
        queries: int,
        dim: int,
        mask_channels: int,
        mask_dim: int,
        layers: int,
        heads: int,
        ffn_dim: int,
        mask_scale: float = 0.1,
        drop_path: float = 0.0,
        cross_attention: str = "kmeans",
    ) -> None:
        """As many of the ``layers`` at each level; ``mask_channels``: width of the mask features.

        ValueError names the key of numbers that do not divide, or of an unknown cross-attention.
        """
        super().__init__()
        key = "MODEL.MASK_TRANSFORMER.TRANSFORMER_DECODER."
        if layers % len(level_channels):
            raise ValueError(
                f"{key}LAYERS {layers} cannot be shared by {len(level_channels)} levels"
            )
        if dim % (2 * heads):
            raise ValueError(f"{key}HEADS {heads} must divide half of HIDDEN_DIM {dim}")
        if cross_attention not in CROSS_ATTENTION:
            known = ", ".join(CROSS_ATTENTION)
            raise ValueError(f"{key}CROSS_ATTENTION is {cross_attention!r}; known: {known}")
        self.per_level = layers // len(level_channels)
        self.centers = nn.Embedding(dim, queries)  # one column for each query
        nn.init.trunc_normal_(self.centers.weight)
        self.layers = nn.ModuleList(
            KMeansLayer(
                channels,
                dim,
                num_classes,
                mask_dim=mask_dim,
                heads=heads,
                ffn_dim=ffn_dim,
                mask_scale=mask_scale,
                drop_path=drop_path,
                cross_attention=CROSS_ATTENTION[cross_attention],
            )
            for channels in level_channels
            for _ in range(self.per_level)
        )
        self.class_projection = LinearNorm(dim, dim, activation=F.gelu)
        self.mask_projection = LinearNorm(dim, dim, activation=F.gelu)
        self.predictor = MaskPredictor(
            mask_channels, dim, num_classes, mask_dim=mask_dim, mask_scale=mask_scale
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, level_channels: Sequence[int]) -> dict:
        """Arguments from ``MODEL.MASK_TRANSFORMER``; ``level_channels``: see ``registry.py``."""
        node = cfg.MODEL.MASK_TRANSFORMER
        part = node.TRANSFORMER_DECODER
        return {
            "level_channels": level_channels,
            "num_classes": node.NUM_CLASSES,
            "queries": node.QUERIES,
            "dim": node.HIDDEN_DIM,
            "mask_channels": level_channels[-1] // 2,  # the decoder halves its width at each stride
            "mask_dim": node.MASK_DIM,
            "layers": part.LAYERS,
            "heads": part.HEADS,
            "ffn_dim": part.FFN_DIM,
            "mask_scale": part.MASK_SCALE,
            "drop_path": part.DROP_PATH_RATE,
            "cross_attention": part.CROSS_ATTENTION,
        }

    def forward(self, pixels: PixelFeatures) -> list[DensePrediction]:
        """The prediction of every layer, the last one, of the mask features, last."""
        centers = self.centers.weight.expand(len(pixels.pixels), -1, -1)  # (N, D, Q)
        levels = chain.from_iterable([level] * self.per_level for level in pixels.levels)
        predictions = []
        for layer, level in zip(self.layers, levels, strict=True):
            centers, prediction = layer(centers, level)
            predictions.append(prediction)
        class_query, mask_query = self.class_projection(centers), self.mask_projection(centers)
        predictions.append(self.predictor(class_query, mask_query, pixels.mask_features))
        return predictions
