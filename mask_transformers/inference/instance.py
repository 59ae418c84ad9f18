"""Instance inference of Mask2Former (supplement), and of kMaX: top-k over query × class."""

import torch
from detectron2.structures import BitMasks, Instances

from .kmax_panoptic import shared_probabilities


def top_instances(class_logits: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
    """The ``count`` best (score, query, class) of (Q, K+1), each (count,), best first."""
    scores = class_logits.softmax(-1)[:, :-1]
    top = scores.flatten().topk(min(count, scores.numel()))
    classes = scores.shape[1]
    query = torch.div(top.indices, classes, rounding_mode="floor")
    return top.values, query, top.indices % classes


def instance_inference(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    count: int = 100,
    classes: set[int] | None = None,
) -> Instances:
    """Instances of one image, best class first.

    class_logits (Q, K+1); mask_logits (Q, H, W); ``count`` pairs of query and class are looked
    at; with ``classes``, only pairs of these classes (the things) are kept. The score is the
    class probability times the mean foreground probability of the mask. Fields: pred_masks
    (n, H, W) bool, scores, pred_classes, pred_boxes (the tight boxes).
    """
    scores, query, label = _top_of_classes(class_logits, count, classes)
    used, position = query.unique(return_inverse=True)
    logits = mask_logits[used]
    return _instances(scores, label, position, logits > 0, logits.sigmoid())


def kmax_instance_inference(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    count: int = 100,
    classes: set[int] | None = None,
    pixel_threshold: float = 0.4,
) -> Instances:
    """The same for masks that share a pixel's probability (kMaX-DeepLab).

    A mask has the pixels that a softmax over the queries gives at least ``pixel_threshold``.
    """
    scores, query, label = _top_of_classes(class_logits, count, classes)
    used, position = query.unique(return_inverse=True)
    probabilities = shared_probabilities(mask_logits, used)
    masks = probabilities >= pixel_threshold
    return _instances(scores, label, position, masks, probabilities)


def _top_of_classes(
    class_logits: torch.Tensor, count: int, classes: set[int] | None
) -> tuple[torch.Tensor, ...]:
    scores, query, label = top_instances(class_logits, count)
    if classes is None:
        return scores, query, label
    kept = torch.isin(label, torch.tensor(sorted(classes), device=label.device))
    return scores[kept], query[kept], label[kept]


def _instances(
    scores: torch.Tensor,
    label: torch.Tensor,
    position: torch.Tensor,
    masks: torch.Tensor,
    probabilities: torch.Tensor,
) -> Instances:
    """Instance i has the mask ``position`` (n,) of ``masks`` and ``probabilities`` (m, H, W)."""
    inside = masks.flatten(1).float()
    quality = (probabilities.flatten(1) * inside).sum(1) / (inside.sum(1) + 1e-6)
    result = Instances((masks.shape[1], masks.shape[2]))
    result.pred_masks = masks[position]
    result.pred_boxes = BitMasks(masks).get_bounding_boxes()[position]
    result.scores = scores * quality[position]
    result.pred_classes = label
    return result
