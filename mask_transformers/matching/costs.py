"""Terms of the matching cost between Q queries and n targets."""

import torch
import torch.nn.functional as F
from torchvision.ops import box_convert, generalized_box_iou


def class_cost(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Negative probability of the target's class: (Q, K+1) and (n,) to (Q, n)."""
    return -logits.softmax(-1)[:, labels]


def pq_cost(logits: torch.Tensor, labels: torch.Tensor, dice: torch.Tensor) -> torch.Tensor:
    """Negative similarity of PQ, class probability × dice (MaX-DeepLab, "PQ-style loss").

    ``logits`` (Q, K+1), ``labels`` (n,), ``dice`` of all pairs of masks (Q, n); returns (Q, n).
    """
    return class_cost(logits, labels) * dice


def bce_cost(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean binary cross entropy of all pairs: (Q, P) and (n, P) to (Q, n).

    BCE(x, t) = softplus(x) - x·t, so that only the product is taken pair by pair.
    """
    return (F.softplus(logits).sum(1, keepdim=True) - logits @ targets.T) / logits.shape[1]


def focal_cost(
    logits: torch.Tensor, targets: torch.Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> torch.Tensor:
    """Mean focal loss (Lin et al., 2017, eq. 5) of all pairs: (Q, P) and (n, P) to (Q, n)."""
    probability = logits.sigmoid()
    positive = alpha * (1 - probability) ** gamma * F.softplus(-logits)
    negative = (1 - alpha) * probability**gamma * F.softplus(logits)
    pairs = (positive - negative) @ targets.T + negative.sum(1, keepdim=True)
    return pairs / logits.shape[1]


def dice_cost(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Dice loss of all pairs: (Q, P) and (n, P) to (Q, n)."""
    probability = logits.sigmoid()
    size = probability.sum(1, keepdim=True) + targets.sum(1)
    return 1 - (2 * probability @ targets.T + 1) / (size + 1)


def box_cost(boxes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """L1 distance of all pairs of boxes (cx, cy, w, h): (Q, 4) and (n, 4) to (Q, n)."""
    return (boxes[:, None] - targets[None]).abs().sum(-1)


def giou_cost(boxes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative generalised IoU of all pairs of boxes (cx, cy, w, h): (Q, 4), (n, 4) to (Q, n)."""
    corners = [box_convert(b, "cxcywh", "xyxy") for b in (boxes, targets)]
    return -generalized_box_iou(*corners)
