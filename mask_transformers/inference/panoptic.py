"""Panoptic inference of MaskFormer (section 3.4) and Mask2Former, which asks a bit more."""

import torch

from .segment_map import SegmentMap


def confident_queries(class_logits: torch.Tensor, threshold: float) -> torch.Tensor:
    """Indices of the queries (Q, K+1) that see an object with probability above ``threshold``."""
    scores, labels = class_logits.softmax(-1).max(-1)
    kept = (labels != class_logits.shape[-1] - 1) & (scores > threshold)
    return kept.nonzero().squeeze(1)


def panoptic_inference(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    thing_classes: set[int],
    object_mask_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
    pixel_threshold: float = 0.5,
) -> tuple[torch.Tensor, list[dict]]:
    """Every pixel goes to the query with the highest class × mask probability.

    class_logits (Q, K+1); mask_logits (Q, H, W). Pixels that the winning query gives less than
    ``pixel_threshold`` (0 in MaskFormer) belong to nothing; a segment that keeps less than
    ``overlap_threshold`` of its mask is dropped; stuff segments of a class are joined. Returns
    segment ids (H, W) int32, 0 for nothing, and per segment ``id``, ``isthing``, ``category_id``.
    """
    kept = confident_queries(class_logits, object_mask_threshold)
    scores, labels = class_logits[kept].softmax(-1).max(-1)
    result = SegmentMap(mask_logits, thing_classes)
    if not len(kept):
        return result.ids, result.segments
    masks = mask_logits[kept].sigmoid()
    winner = (scores[:, None, None] * masks).argmax(0)
    for index, label in enumerate(labels.tolist()):
        won, solid = winner == index, masks[index] >= 0.5
        mask = won & (masks[index] >= pixel_threshold)
        if not (mask.any() and solid.any()) or won.sum() / solid.sum() < overlap_threshold:
            continue
        result.add(mask, label)
    return result.ids, result.segments
