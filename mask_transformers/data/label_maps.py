"""Segments that do not overlap, as one map that follows the augmentation of its image.

However many segments there are, one map is resized and cropped, by operations that copy pixels.
"""

from dataclasses import dataclass

import numpy as np
from detectron2.structures import Instances
from fvcore.transforms.transform import Transform
from scipy.ndimage import find_objects

from .target_instances import mask_instances

# Label of pixels without a segment; augmentations must pad label maps with it.
VOID = 255
# Most segments that a label map of one byte tells apart.
ONE_BYTE = 255


@dataclass
class LabelMapAnnotations:
    """A label map and what its indices mean.

    ``label_map`` is (H, W) uint8 with indices and VOID, or made by :func:`pack`; ``labels`` (m,)
    int64 holds the class of every index, -1 for those not to learn from.
    """

    label_map: np.ndarray
    labels: np.ndarray

    def targets(
        self, label_map: np.ndarray, transforms: Transform, size: tuple[int, int]
    ) -> Instances:
        """Instances with masks of the segments left in the augmented ``label_map``."""
        index = unpack(label_map)  # (h, w)
        windows = self.windows(index)
        masks = np.zeros((len(windows), *index.shape), dtype=bool)
        for mask, (i, window) in zip(masks, windows.items(), strict=True):
            mask[window] = index[window] == i
        return mask_instances(self.labels[list(windows)], masks)

    def windows(self, index: np.ndarray) -> dict[int, tuple[slice, slice]]:
        """Rows and columns around each segment to learn from that ``index`` (h, w) shows."""
        shifted = index + index.dtype.type(1)  # uint8 void wraps to 0
        found = find_objects(shifted, len(self.labels))
        return {i: window for i, window in enumerate(found) if window and self.labels[i] >= 0}


def decode_ids(rgb: np.ndarray) -> np.ndarray:
    """Segment ids R + 256·G + 65536·B, (H, W) uint32, of a panoptic PNG (H, W, 3) uint8."""
    red, green, blue = (rgb[..., channel].astype(np.uint32) for channel in range(3))
    return red | green << 8 | blue << 16


def encode_ids(ids: np.ndarray) -> np.ndarray:
    """The panoptic PNG, (H, W, 3) uint8, of segment ids (H, W); ``decode_ids`` the other way."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)


def segment_index(ids: np.ndarray, listed: list[int], png: str) -> np.ndarray:
    """Position in ``listed`` of every pixel's id, (H, W) int32, and -1 where the id is 0.

    Raises:
        ValueError: ``png`` shows an id that is not listed, or lacks one that is.
    """
    order = np.argsort(np.asarray(listed, np.int64), kind="stable")
    table = np.concatenate([[0], np.asarray(listed, np.int64)[order]]).astype(np.uint32)
    rank = np.minimum(np.searchsorted(table, ids), len(table) - 1)
    foreign = table[rank] != ids
    if foreign.any():
        unlisted = np.unique(ids[foreign])[:5].tolist()
        raise ValueError(f"{png}: holds segment ids that segments_info does not list: {unlisted}")
    absent = table[1:][np.bincount(rank.ravel(), minlength=len(table))[1:] == 0]
    if len(absent):
        raise ValueError(f"{png}: no pixel of the listed segments with ids {absent[:5].tolist()}")
    return np.concatenate([[-1], order]).astype(np.int32)[rank]


def pack(index: np.ndarray, count: int) -> np.ndarray:
    """Indices below ``count``, and -1 for void, as uint8 that Pillow can resize.

    Up to 255 segments fit (H, W); more become the low and high byte of an (H, W, 3) image.
    """
    if count <= ONE_BYTE:
        return index.astype(np.uint8)  # -1 wraps to VOID
    high = (index >> 8).astype(np.uint8)
    return np.stack([index.astype(np.uint8), high, high], axis=-1)


def unpack(label_map: np.ndarray) -> np.ndarray:
    """Indices (h, w) of a label map made by :func:`pack`; void is above every index."""
    if label_map.ndim == 2:
        return label_map
    return label_map[..., 0].astype(np.int32) | label_map[..., 1].astype(np.int32) << 8
