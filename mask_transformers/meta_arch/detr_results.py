"""What DETR gives for one image: boxes, masks of the surest queries, panoptic segments."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..inference.detection import best_classes, detected_instances
from ..inference.detr_panoptic import detr_panoptic_inference, sure_queries
from .base import resize_to_output

FEW = 16  # masks that are computed at a time, for the sake of memory

Size = tuple[int, int]  # height, width


@dataclass
class Wanted:
    """The results that are asked for."""

    tasks: frozenset[str]  # of "box", "instance", "panoptic"
    thing_classes: set[int]
    object_mask_threshold: float  # panoptic: of class probabilities
    detections_per_image: int


def image_results(
    wanted: Wanted,
    probabilities: torch.Tensor,
    boxes: torch.Tensor,
    compute_masks: Callable[[torch.Tensor], torch.Tensor],
    padded: Size,
    image: Size,
    output: Size,
) -> dict:
    """``instances`` and ``panoptic_seg`` of an image, scaled to ``output``.

    probabilities (Q, K+1); boxes (Q, 4) relative to the image; ``compute_masks`` gives the mask
    logits (n, h, w) of the queries (n,), in the ``padded`` image. No other queries get a mask than
    those whose mask is in the result.
    """
    scores, labels, found = best_classes(
        probabilities, wanted.detections_per_image, wanted.thing_classes
    )
    sure, classes = sure_queries(probabilities, wanted.object_mask_threshold)
    shown = {"instance": found, "panoptic": sure}
    masks = masks_of(compute_masks, {t: shown[t] for t in shown if t in wanted.tasks})
    results: dict = {}
    if "panoptic" in masks:
        seen = resize_to_output(masks["panoptic"], padded, image, image)
        results["panoptic_seg"] = detr_panoptic_inference(
            classes, seen, wanted.thing_classes, output
        )
    if wanted.tasks & {"box", "instance"}:
        results["instances"] = detected_instances(scores, labels, boxes[found], output)
    if "instance" in masks:
        results["instances"].pred_masks = binary_masks(masks["instance"], padded, image, output)
    return results


def masks_of(
    compute_masks: Callable[[torch.Tensor], torch.Tensor], shown: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Mask logits of the queries of each task, every query's computed once."""
    if not shown:
        return {}
    used, position = torch.cat(list(shown.values())).unique(return_inverse=True)
    masks = torch.cat([compute_masks(few).float() for few in used.split(FEW)])
    parts = masks[position].split([len(index) for index in shown.values()])
    return dict(zip(shown, parts, strict=True))


def binary_masks(
    masks: torch.Tensor,
    padded: Size,
    image: Size,
    output: Size,
) -> torch.Tensor:
    """Logits (n, h, w) to masks (n, *output) bool, as in DETR's code: one by one, to save memory.

    Thresholds at the size of the image, then takes the nearest pixel.
    """
    result = torch.zeros(len(masks), *output, dtype=torch.bool, device=masks.device)
    for i in range(len(masks)):
        seen = (resize_to_output(masks[i : i + 1], padded, image, image) > 0).to(torch.uint8)
        result[i] = F.interpolate(seen[None], size=output, mode="nearest")[0, 0].bool()
    return result
