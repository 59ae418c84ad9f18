"""Losses of a box (cx, cy, w, h) against its target, one value a box."""

import torch
from torchvision.ops import box_convert, generalized_box_iou_loss


def l1_box_loss(boxes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum of the four differences: (M, 4) and (M, 4) to (M,)."""
    return (boxes - targets).abs().sum(1)


def giou_loss(boxes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 - generalised IoU (DETR, supplement, eq. 4): (M, 4) and (M, 4) to (M,)."""
    corners = [box_convert(b, "cxcywh", "xyxy") for b in (boxes, targets)]
    return generalized_box_iou_loss(*corners)
