"""Decoder of kMaX-DeepLab: layers of k-means at each level, and the prediction they end in."""

from collections.abc import Sequence
from functools import partial
from itertools import chain

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import nn

from ..layers.conv_norm import LinearNorm
from ..registry import TRANSFORMER_DECODERS
from ..structures import DensePrediction, PixelFeatures
from .kmeans import CROSS_ATTENTION, KMeansLayer
from .mask_predictor import MaskPredictor


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
        predictor = partial(
            MaskPredictor,
            query_dim=dim,
            num_classes=num_classes,
            mask_dim=mask_dim,
            mask_scale=mask_scale,
        )
        self.layers = nn.ModuleList(
            KMeansLayer(
                channels,
                dim,
                predictor(dim),
                heads=heads,
                ffn_dim=ffn_dim,
                drop_path=drop_path,
                cross_attention=CROSS_ATTENTION[cross_attention],
            )
            for channels in level_channels
            for _ in range(self.per_level)
        )
        self.class_projection = LinearNorm(dim, dim, activation=F.gelu)
        self.mask_projection = LinearNorm(dim, dim, activation=F.gelu)
        self.predictor = predictor(mask_channels)

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
