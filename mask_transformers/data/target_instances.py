"""What a model learns from one image: Detectron2's ``Instances``, out of masks or of boxes."""

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances


def mask_instances(labels: np.ndarray, masks: np.ndarray) -> Instances:
    """gt_classes (n,), gt_masks (n, h, w) and their tight gt_boxes of non-empty ``masks`` bool."""
    instances = Instances(masks.shape[1:])
    instances.gt_classes = torch.from_numpy(labels)
    instances.gt_masks = BitMasks(torch.from_numpy(masks))
    instances.gt_boxes = Boxes(mask_boxes(instances.gt_masks.tensor))
    return instances


def box_instances(labels: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> Instances:
    """gt_classes (n,) and gt_boxes, x0 y0 x1 y1 (n, 4), of an image of ``size`` (h, w)."""
    instances = Instances(size)
    instances.gt_classes = torch.from_numpy(labels)
    instances.gt_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
    return instances


def mask_boxes(masks: torch.Tensor) -> torch.Tensor:
    """Boxes (n, 4), x0 y0 x1 y1 with the far edge outside, of non-empty masks (n, h, w) bool."""
    edges = []
    for axis in (1, 2):  # the columns, then the rows that a mask touches
        touched = masks.view(torch.uint8).amax(dim=axis)  # (n, w) or (n, h)
        length = touched.shape[1]
        edges += [touched.argmax(dim=1), length - touched.flip(1).argmax(dim=1)]
    return torch.stack([edges[0], edges[2], edges[1], edges[3]], dim=1).float()
