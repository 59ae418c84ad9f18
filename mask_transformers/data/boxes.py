"""Boxes that follow the augmentation of their image, for detectors that learn no masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.structures import BoxMode, Instances
from fvcore.transforms.transform import CropTransform, Transform, TransformList

from .label_maps import LabelMapAnnotations, unpack
from .target_instances import box_instances

MODES = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)


@dataclass
class BoxAnnotations:
    """Classes ``labels`` (m,) int64 of ``boxes`` (m, 4) float64, x0 y0 x1 y1 in pixels."""

    labels: np.ndarray
    boxes: np.ndarray
    label_map: None = None

    def targets(
        self, label_map: None, transforms: TransformList, size: tuple[int, int]
    ) -> Instances:
        """Instances without masks of what the augmented image, ``size`` (h, w), shows."""
        boxes = clip_boxes(move_boxes(self.boxes, transforms), size)
        # As in DETR, a box without extent is no object; one of a part of a pixel is.
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return box_instances(self.labels[kept], boxes[kept], size)


class SegmentBoxes(LabelMapAnnotations):
    """Segments of which only the tight boxes are learnt."""

    def targets(
        self, label_map: np.ndarray, transforms: Transform, size: tuple[int, int]
    ) -> Instances:
        """Instances without masks of the segments left in the augmented ``label_map``."""
        windows = self.windows(unpack(label_map))
        boxes = [(x.start, y.start, x.stop, y.stop) for y, x in windows.values()]
        return box_instances(self.labels[list(windows)], np.reshape(boxes, (-1, 4)), size)


def move_boxes(boxes: np.ndarray, transforms: TransformList) -> np.ndarray:
    """Boxes (n, 4) moved by ``transforms``; what a crop cuts off, padding does not bring back."""
    for transform in transforms.transforms:
        boxes = transform.apply_box(boxes)
        if isinstance(transform, CropTransform):
            boxes = clip_boxes(boxes, (transform.h, transform.w))
    return boxes


def clip_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes (n, 4), x0 y0 x1 y1, cut to an image of ``size`` (h, w)."""
    height, width = size
    return boxes.clip(0, (width, height, width, height))


def parse_box(annotation: Mapping[str, Any], where: str) -> Sequence[float]:
    """x0, y0, x1, y1 of the ``bbox`` of an annotation in Detectron2's format.

    Raises:
        ValueError: no ``bbox`` of four numbers, or another ``bbox_mode`` than absolute XYXY, XYWH.
    """
    box, mode = annotation.get("bbox"), annotation.get("bbox_mode")
    if box is None or np.shape(box) != (4,):
        raise ValueError(f"an annotation of {where} has no 'bbox' of four numbers, but {box!r}")
    if mode not in MODES:
        names = [str(known.name) for known in MODES]
        raise ValueError(f"an annotation of {where} has 'bbox_mode' {mode!r}, none of {names}")
    return BoxMode.convert([float(value) for value in box], mode, BoxMode.XYXY_ABS)
