"""The types passed between the parts, and the letters used in shape comments.

N batch, Q queries, K classes (no-object is index K), C channels, H×W image, h×w mask grid,
L tokens, P points.
"""

from dataclasses import dataclass

import torch


@dataclass
class PixelFeatures:
    """What a pixel decoder hands to a transformer decoder."""

    mask_features: torch.Tensor  # (N, C, h, w)
    levels: list[torch.Tensor]  # each (N, C, h_l, w_l), coarse first


@dataclass
class Targets:
    """Ground truth of one image; ``name`` appears in error messages."""

    labels: torch.Tensor  # (n,) int64 in [0, K)
    masks: torch.Tensor  # (n, H, W) bool
    name: str = ""
