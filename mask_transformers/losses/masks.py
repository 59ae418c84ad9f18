"""Losses of a mask against its target, one value a mask."""

import torch
import torch.nn.functional as F


def bce_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean binary cross entropy over points: (M, P) and (M, P) in [0, 1] to (M,)."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)


def dice_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 - dice with one added above and below (V-Net): (M, P) and (M, P) in [0, 1] to (M,)."""
    probability = logits.sigmoid()
    overlap = (probability * targets).sum(1)
    return 1 - (2 * overlap + 1) / (probability.sum(1) + targets.sum(1) + 1)
