"""Panoptic inference of MaX-DeepLab: every pixel goes to one slot (MaX-DeepLab, section 3.1).

The mask-wise variant, where masks are placed one after the other, is ``kmax_panoptic_inference``.
"""

import torch

from .kmax_panoptic import sure_classes
from .segment_map import SegmentMap

COCO_AREA = 640 * 480  # pixels of an image that area limits are meant for


def max_panoptic_inference(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    thing_classes: set[int],
    thing_threshold: float = 0.7,
    stuff_threshold: float = 0.7,
    pixel_threshold: float = 0.4,
    thing_area: float = 100,
    stuff_area: float = 1600,
) -> tuple[torch.Tensor, list[dict]]:
    """Segments from a pixel-wise argmax over the slots whose class is sure enough.

    class_logits (Q, K+1); mask_logits (Q, H, W), whose softmax over all slots says whose a pixel
    is. A pixel goes to the most probable of the sure slots, even where an unsure one has more. It
    stays void with less than ``pixel_threshold``. Stuff of one class is one segment.
    Things with less than ``thing_area`` pixels and stuff with less than ``stuff_area`` are left
    out: numbers for an image of 640×480, for others in proportion to their area. Returns as
    ``panoptic_inference``.
    """
    index, labels, _ = sure_classes(class_logits, thing_classes, thing_threshold, stuff_threshold)
    result = SegmentMap(mask_logits, thing_classes)
    if not len(index):
        return result.ids, result.segments
    # The probabilities of these few, and not of all: maps may be large.
    best, owner = mask_logits[index].max(0)
    sure = (best - mask_logits.logsumexp(0)).exp() >= pixel_threshold
    scale = best.numel() / COCO_AREA
    for label, slots in _groups(labels.tolist(), thing_classes):
        mask = sure & torch.isin(owner, owner.new_tensor(slots))
        smallest = thing_area if label in thing_classes else stuff_area
        if mask.sum() >= max(smallest * scale, 1):
            result.add(mask, label)
    return result.ids, result.segments


def _groups(labels: list[int], thing_classes: set[int]) -> list[tuple[int, list[int]]]:
    """Class and slots of each segment: one slot of a thing, all slots of a stuff class."""
    things = [(label, [i]) for i, label in enumerate(labels) if label in thing_classes]
    stuff: dict[int, list[int]] = {}
    for i, label in enumerate(labels):
        if label not in thing_classes:
            stuff.setdefault(label, []).append(i)
    return things + list(stuff.items())
