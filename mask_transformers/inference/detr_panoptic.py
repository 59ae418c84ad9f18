"""Panoptic inference of DETR (section 4.4): every pixel to the query of the highest mask logit."""

import torch
import torch.nn.functional as F


def sure_queries(
    probabilities: torch.Tensor, threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Index and class of the queries (Q, K+1) that see an object with more than ``threshold``."""
    scores, labels = probabilities.max(-1)
    kept = (labels != probabilities.shape[-1] - 1) & (scores > threshold)
    return kept.nonzero().squeeze(1), labels[kept]


def detr_panoptic_inference(
    labels: torch.Tensor,
    masks: torch.Tensor,
    thing_classes: set[int],
    output: tuple[int, int],
    smallest_area: int = 4,
) -> tuple[torch.Tensor, list[dict]]:
    """Segments of an image of ``output`` (height, width) from the queries that are kept.

    labels (n,); masks (n, H, W) logits at the size that the model saw. Stuff of one class is one
    segment; segments of at most ``smallest_area`` pixels are taken out, and the others contend for
    their pixels again, until there are none. Returns as ``panoptic_inference``.
    """
    winner = _joined_stuff(_winner(masks), labels.tolist(), thing_classes)
    while len(labels):
        segment_ids = F.interpolate(winner[None, None].float(), size=output, mode="nearest-exact")
        segment_ids = segment_ids[0, 0].int()
        large = segment_ids.flatten().bincount(minlength=len(labels)) > smallest_area
        if large.all():
            break
        labels, masks = labels[large], masks[large]
        winner = _winner(masks)
    else:
        return torch.zeros(output, dtype=torch.int32, device=masks.device), []
    segments = [
        {"id": i, "isthing": label in thing_classes, "category_id": label}
        for i, label in enumerate(labels.tolist(), start=1)
    ]
    return segment_ids + 1, segments


def _winner(masks: torch.Tensor) -> torch.Tensor:
    """Index (H, W) of the highest of (n, H, W); the softmax in between changes no order."""
    return masks.argmax(0) if len(masks) else masks.new_zeros(masks.shape[1:])


def _joined_stuff(winner: torch.Tensor, labels: list[int], thing_classes: set[int]) -> torch.Tensor:
    """``winner`` (H, W) with the first index of each stuff class for all of it."""
    first = [i if label in thing_classes else labels.index(label) for i, label in enumerate(labels)]
    return torch.tensor(first, device=winner.device)[winner] if first else winner
