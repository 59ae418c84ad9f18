"""The product that every mask transformer ends in."""

import torch
import torch.nn.functional as F
from torch import nn


def predict_masks(embedding: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Mask logits (N, Q, h, w) from embeddings (N, Q, C) and features (N, C, h, w)."""
    return torch.einsum("nqc,nchw->nqhw", embedding, features)


def predict_projected_masks(
    embedding: torch.Tensor, pixels: torch.Tensor, projection: nn.Conv2d
) -> torch.Tensor:
    """``predict_masks(embedding, projection(pixels))`` without the features in between.

    Both steps are linear, so their product is one convolution with Q output channels in place of
    C: less work where Q is at most C. ``pixels`` (N, C', h, w); returns (N, Q, h, w).
    """
    if not embedding.shape[1]:  # which convolutions refuse
        return pixels.new_zeros(len(pixels), 0, *pixels.shape[2:])
    assert projection.bias is not None
    weight = torch.einsum("nqc,cdyx->nqdyx", embedding, projection.weight)
    bias = embedding @ projection.bias  # (N, Q)
    images = zip(pixels.split(1), weight, bias, strict=True)
    masks = [F.conv2d(x, w, b, padding=projection.padding) for x, w, b in images]
    return torch.cat(masks).contiguous()  # mask by mask, also where channels come last
