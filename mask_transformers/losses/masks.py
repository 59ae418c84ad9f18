"""Losses of a mask against its target, one value a mask."""

import torch
import torch.nn.functional as F


def bce_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean binary cross entropy over points: (M, P) and (M, P) in [0, 1] to (M,)."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)


def focal_loss(
    logits: torch.Tensor, targets: torch.Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> torch.Tensor:
    """Mean focal loss (Lin et al., 2017, eq. 5): (M, P) and bool (M, P) to (M,)."""
    # With the sign that makes large values wrong, both cases are one formula.
    wrong = torch.where(targets, -logits, logits)
    weight = torch.where(targets, alpha, 1 - alpha)
    return (weight * wrong.sigmoid() ** gamma * F.softplus(wrong)).mean(1)


def dice_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 - dice with one added above and below (V-Net): (M, P) and (M, P) in [0, 1] to (M,)."""
    probability = logits.sigmoid()
    overlap = (probability * targets).sum(1)
    return 1 - (2 * overlap + 1) / (probability.sum(1) + targets.sum(1) + 1)


def upsampled_mask_losses(
    logits: torch.Tensor, truth: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of focal and dice loss of masks (M, h, w), resized to their ``truth`` (M, H, W) bool."""
    logits = F.interpolate(
        logits[:, None].float(), size=truth.shape[-2:], mode="bilinear", align_corners=False
    ).flatten(1)
    truth = truth.flatten(1)
    return focal_loss(logits, truth).sum(), dice_loss(logits, truth.float()).sum()
