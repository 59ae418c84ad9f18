"""Detection with one class for every query (DETR, section 3.1)."""

import torch
from detectron2.structures import Boxes, Instances
from torchvision.ops import box_convert


def contiguous_probabilities(logits: torch.Tensor, class_ids: torch.Tensor | None) -> torch.Tensor:
    """Class probabilities (Q, K+1) of logits (Q, K'+1), no-object last.

    ``class_ids`` (K,): which of the K' logits stands for each class; None: all as they are.
    """
    probabilities = logits.softmax(-1)
    if class_ids is None:
        return probabilities
    return torch.cat([probabilities[:, class_ids], probabilities[:, -1:]], dim=1)


def best_classes(
    probabilities: torch.Tensor, count: int, classes: set[int] | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Score, class and index of the ``count`` queries (Q, K+1) that are surest, best first.

    Each query stands for its best class, which is not no-object; with ``classes`` (the things),
    queries of other classes are left out.
    """
    scores, labels = probabilities[:, :-1].max(-1)
    index = scores.argsort(descending=True)
    if classes is not None:
        allowed = torch.tensor(sorted(classes), device=labels.device)
        index = index[torch.isin(labels[index], allowed)]
    index = index[:count]
    return scores[index], labels[index], index


def detected_instances(
    scores: torch.Tensor, labels: torch.Tensor, boxes: torch.Tensor, output: tuple[int, int]
) -> Instances:
    """Instances of an image of ``output`` (height, width).

    scores (n,), labels (n,), boxes (n, 4): cx, cy, w, h relative to the image. Fields: pred_boxes
    in pixels, scores, pred_classes. As published, boxes may reach out of the image.
    """
    height, width = output
    scale = boxes.new_tensor([width, height, width, height])
    result = Instances(output)
    result.pred_boxes = Boxes(box_convert(boxes, "cxcywh", "xyxy") * scale)
    result.scores = scores
    result.pred_classes = labels
    return result
