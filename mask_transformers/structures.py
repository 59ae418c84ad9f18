"""The types passed between the parts, and the letters used in shape comments.

N batch, Q queries, K classes (no-object is index K), C channels, H×W image, h×w mask grid,
L tokens, P points.
"""

import functools
from dataclasses import dataclass

import torch
from torch import nn

from .heads import predict_masks, predict_projected_masks
from .layers.pixel_grid import PixelGrid


@dataclass
class PixelFeatures:
    """What a pixel decoder hands to a transformer decoder.

    The mask features are the ``projection`` of ``pixels``, or ``pixels`` as they are. They are
    computed once somebody asks for them, which inference need not do.
    """

    pixels: torch.Tensor  # (N, C', h, w)
    levels: list[torch.Tensor]  # each (N, C, h_l, w_l), coarse first
    projection: nn.Conv2d | None = None

    @functools.cached_property
    def mask_features(self) -> torch.Tensor:
        """What mask embeddings are multiplied with: (N, C, h, w)."""
        return self.pixels if self.projection is None else self.projection(self.pixels)

    def predict_masks(self, embedding: torch.Tensor) -> torch.Tensor:
        """Mask logits (N, Q, h, w) from embeddings (N, Q, C)."""
        few = embedding.shape[1] <= embedding.shape[2]
        if self.projection is None or torch.is_grad_enabled() or not few:
            return predict_masks(embedding, self.mask_features)
        return predict_projected_masks(embedding, self.pixels, self.projection)

    def image(self, index: int) -> "PixelFeatures":
        """The features of one image, still with a batch dimension."""
        one = slice(index, index + 1)  # which keeps the memory layout
        levels = [level[one] for level in self.levels]
        return PixelFeatures(self.pixels[one], levels, self.projection)


@dataclass
class Scene:
    """What DETR's detector makes of a batch."""

    projected: torch.Tensor  # (N, C, h, w), what the encoder starts from
    memory: torch.Tensor  # (N, C, h, w), what it ends with
    fine: list[torch.Tensor]  # the finer backbone features (N, C_l, h_l, w_l), coarse to fine
    grid: PixelGrid
    queries: torch.Tensor  # (N, Q, C) of the last layer
    predictions: list[tuple[torch.Tensor, torch.Tensor]]  # per layer logits (N, Q, K+1), boxes


@dataclass
class BoxTargets:
    """Ground truth of one image for DETR; ``name`` appears in error messages."""

    labels: torch.Tensor  # (n,) int64 in [0, K)
    boxes: torch.Tensor  # (n, 4) cx, cy, w, h relative to the image without padding
    masks: torch.Tensor  # (n, H, W) bool, with padding; (n, 0, 0) where there are none
    name: str = ""


@dataclass
class DensePrediction:
    """What a layer of MaX-DeepLab or kMaX-DeepLab predicts."""

    class_logits: torch.Tensor  # (N, Q, K+1)
    mask_logits: torch.Tensor  # (N, Q, h, w)
    pixel_features: torch.Tensor  # (N, C, h, w), of length one


@dataclass
class Targets:
    """Ground truth of one image; ``name`` appears in error messages."""

    labels: torch.Tensor  # (n,) int64 in [0, K)
    masks: torch.Tensor  # (n, H, W) bool
    name: str = ""
