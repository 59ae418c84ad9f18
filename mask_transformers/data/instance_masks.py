"""Instances that may overlap: polygons and bitmaps that follow the augmentation of their image."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from detectron2.structures import Instances
from fvcore.transforms.transform import Transform
from pycocotools import mask as rle_codec

from .target_instances import mask_instances

# Bitmaps packed into one byte: its eighth bit tells padding, which is 255, from the image.
BITS = 7

Shape = list[np.ndarray] | np.ndarray  # polygons, each (P, 2) of x and y, or a bitmap (H, W) uint8


@dataclass
class InstanceAnnotations:
    """Classes ``labels`` (m,) int64 of ``shapes``; there is no label map to augment."""

    labels: np.ndarray
    shapes: list[Shape] = field(default_factory=list)
    label_map: None = None

    def targets(self, label_map: None, transforms: Transform, size: tuple[int, int]) -> Instances:
        """Instances with masks of what the augmented image, ``size`` (h, w), shows."""
        shapes = [shape for shape in self.shapes if isinstance(shape, np.ndarray)]
        bitmaps = iter(transform_bitmaps(shapes, transforms))
        masks = np.zeros((len(self.shapes), *size), dtype=bool)
        for mask, shape in zip(masks, self.shapes, strict=True):
            mask[:] = (
                rasterise(shape, transforms, size) if isinstance(shape, list) else next(bitmaps)
            )
        kept = masks.any(axis=(1, 2))
        return mask_instances(self.labels[kept], masks[kept])


def parse_segmentation(segmentation: object, size: tuple[int, int], where: str) -> Shape:
    """The shape of a COCO ``segmentation``: a list of polygons or a run-length encoding.

    Raises:
        ValueError: it is neither, or an encoding of another size than the image's ``size`` (H, W).
    """
    if isinstance(segmentation, dict) and {"counts", "size"} <= segmentation.keys():
        if tuple(segmentation["size"]) != tuple(size):
            raise ValueError(
                f"size mismatch: image {where} is {size[0]}x{size[1]} (height x width), but a "
                f"run-length encoding of its annotations is {segmentation['size']}"
            )
        if isinstance(segmentation["counts"], list):
            segmentation = rle_codec.frPyObjects(segmentation, *size)
        return rle_codec.decode(segmentation)
    polygons = segmentation if isinstance(segmentation, list) else []
    if not polygons or any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        raise ValueError(f"an annotation of {where} has no valid polygon or run-length encoding")
    return [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons]


def rasterise(polygons: list[np.ndarray], transforms: Transform, size: tuple[int, int]):
    """Mask (h, w) of polygons moved by ``transforms``; what leaves the image is cut off."""
    moved = [transforms.apply_coords(polygon.copy()).ravel().tolist() for polygon in polygons]
    return rle_codec.decode(rle_codec.merge(rle_codec.frPyObjects(moved, *size)))


def transform_bitmaps(bitmaps: list[np.ndarray], transforms: Transform) -> list[np.ndarray]:
    """Bitmaps (h, w) moved by ``transforms``, seven at a time as the bits of one label map."""
    moved: list[np.ndarray] = []
    for start in range(0, len(bitmaps), BITS):
        group = bitmaps[start : start + BITS]
        bits = np.zeros(group[0].shape, np.uint8)
        for bit, bitmap in enumerate(group):
            bits |= bitmap << bit
        bits = transforms.apply_segmentation(bits)
        bits = np.where(bits >> BITS, np.uint8(0), bits)
        moved += [bits >> bit & 1 for bit in range(len(group))]
    return moved


def mask_entry(mask: np.ndarray) -> dict[str, Any]:
    """COCO's ``segmentation`` (run-length encoding), ``area`` and ``bbox`` of a mask (H, W)."""
    code = rle_codec.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "segmentation": {"size": list(code["size"]), "counts": code["counts"].decode("ascii")},
        "area": int(mask.sum()),
        "bbox": mask_box(mask),
    }


def mask_box(mask: np.ndarray) -> list[int]:
    """[x, y, width, height] in pixels of a mask (H, W), as COCO has it; zeros for an empty mask."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(rows):
        return [0, 0, 0, 0]
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
