"""Panoptic inference of MaX-DeepLab and kMaX-DeepLab: masks are placed one after the other.

Mask-wise merging (kMaX-DeepLab, section 4.1): in the order of their scores, masks take the pixels
that are still free.
"""

import torch

from .segment_map import SegmentMap


def sure_classes(
    class_logits: torch.Tensor,
    thing_classes: set[int],
    thing_threshold: float = 0.7,
    stuff_threshold: float = 0.5,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Index, class and its probability, of the queries (Q, K+1) that are sure of their class.

    The class is the best one that is not no-object, however probable no-object is.
    """
    scores, labels = class_logits.softmax(-1)[:, :-1].max(-1)
    things = torch.tensor(sorted(thing_classes), dtype=labels.dtype, device=labels.device)
    isthing = torch.isin(labels, things)
    index = (scores >= torch.where(isthing, thing_threshold, stuff_threshold)).nonzero().squeeze(1)
    return index, labels[index], scores[index]


def shared_probabilities(mask_logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The softmax over all queries of ``mask_logits`` (Q, H, W), for the queries ``index`` alone.

    Maps may be large, and few queries are kept. (k, H, W).
    """
    return (mask_logits[index] - mask_logits.logsumexp(0)).exp()


def kmax_panoptic_inference(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    thing_classes: set[int],
    thing_threshold: float = 0.7,
    stuff_threshold: float = 0.5,
    pixel_threshold: float = 0.4,
    overlap_threshold: float = 0.8,
) -> tuple[torch.Tensor, list[dict]]:
    """Segments from the queries whose class is sure enough, best first.

    class_logits (Q, K+1); mask_logits (Q, H, W), whose softmax over the queries says whose a pixel
    is. A mask has the pixels with at least ``pixel_threshold``; it is scored by the class times
    their mean, takes its pixels that are free, and is dropped if these are less than
    ``overlap_threshold`` of it. Stuff of one class is one segment. Returns as
    ``panoptic_inference``.
    """
    index, labels, scores = sure_classes(
        class_logits, thing_classes, thing_threshold, stuff_threshold
    )
    probabilities = shared_probabilities(mask_logits, index)
    masks = probabilities >= pixel_threshold
    areas = masks.sum((1, 2))
    scores = scores * (probabilities * masks).sum((1, 2)) / areas.clamp(min=1)
    result = SegmentMap(mask_logits, thing_classes)
    for i in scores.argsort(descending=True).tolist():
        free = masks[i] & (result.ids == 0)
        if not areas[i] or free.sum() < overlap_threshold * areas[i]:
            continue
        result.add(free, int(labels[i]))
    return result.ids, result.segments
