"""Panoptic copy-paste (kMaX-DeepLab, section 4.1): segments of one training image in another.

"Simple Copy-Paste" (Ghiasi et al., CVPR 2021) for things and stuff. Both images go through the same
augmentation, each with draws of its own; then segments of the second cover what they fall on in the
first.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, get_detection_dataset_dicts
from detectron2.structures import Instances
from torch.utils.data import Dataset

from .target_instances import mask_instances

# Key of a record under which it carries the one to paste from.
PARTNER = "paste_from"
# Segments are pasted with this probability, each for itself.
SHARE = 0.5


class PartneredRecords(Dataset):
    """Records, each with another random one at ``PARTNER`` as often as ``probability`` says."""

    def __init__(self, records: Sequence[dict[str, Any]], probability: float) -> None:
        """``records`` are kept once for all processes of a loader, serialised."""
        self.records = DatasetFromList(list(records), copy=False)
        self.probability = probability

    def __len__(self) -> int:
        """Number of records."""
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record at ``index``; its partner is drawn by NumPy's global generator."""
        record = self.records[index]
        if np.random.random() < self.probability:
            record = {**record, PARTNER: self.records[int(np.random.randint(len(self)))]}
        return record


def partnered_records(cfg: CfgNode) -> PartneredRecords | None:
    """The records of ``DATASETS.TRAIN`` for ``INPUT.COPY_PASTE``; None where that is 0."""
    if not cfg.INPUT.COPY_PASTE:
        return None
    records = get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )
    return PartneredRecords(records, cfg.INPUT.COPY_PASTE)


def check_copy_paste(cfg: CfgNode) -> None:
    """ValueError unless ``INPUT.COPY_PASTE`` is a probability that the other keys can serve."""
    probability, node = cfg.INPUT.COPY_PASTE, cfg.INPUT
    if not 0 <= probability <= 1:
        raise ValueError(f"INPUT.COPY_PASTE must be in [0, 1], not {probability}")
    if not probability:
        return
    if node.ANNOTATIONS == "box":
        raise ValueError(
            f"INPUT.COPY_PASTE is {probability}, which needs masks, but INPUT.ANNOTATIONS is 'box'"
        )
    crop = node.CROP
    one_size = crop.ENABLED and crop.TYPE == "absolute" and not crop.BEFORE_RESIZE
    if not (node.LSJ.ENABLED or one_size):
        raise ValueError(
            f"INPUT.COPY_PASTE is {probability}, which needs images of one size: INPUT.LSJ.ENABLED "
            "or an INPUT.CROP of TYPE 'absolute' after the resize"
        )


def draw_segments(count: int) -> np.ndarray:
    """Which of ``count`` segments to paste, (count,) bool, by NumPy's global generator."""
    return np.random.random(count) < SHARE


def paste_segments(
    target: tuple[torch.Tensor, Instances],
    source: tuple[torch.Tensor, Instances],
    chosen: np.ndarray,
    thing_classes: Collection[int] | None,
) -> tuple[torch.Tensor, Instances]:
    """Image (3, h, w) and instances of ``target`` under the ``chosen`` segments of ``source``.

    Segments of the target keep their order and what is not covered of them; those of which nothing
    is left vanish. Classes that are not in ``thing_classes`` (None: all are things) have one
    segment, in whichever image it was.

    Args:
        target: image and instances with gt_classes (n,) and gt_masks BitMasks (n, h, w).
        source: the same of the image to paste from, with m segments.
        chosen: (m,) bool.
        thing_classes: class ids whose segments stay apart.

    Raises:
        ValueError: the images differ in size.
    """
    (image, below), (other_image, above) = target, source
    if image.shape != other_image.shape:
        raise ValueError(
            f"INPUT.COPY_PASTE needs images of one size, not {tuple(image.shape[1:])} and "
            f"{tuple(other_image.shape[1:])}"
        )
    # NumPy's operations on bool are several times as fast as those of torch.
    pasted = above.gt_masks.tensor.numpy()[chosen]
    covered = pasted.any(0)  # (h, w)
    masks = np.concatenate([below.gt_masks.tensor.numpy(), pasted])
    masks[: len(below)] &= ~covered
    labels = np.concatenate([below.gt_classes.numpy(), above.gt_classes.numpy()[chosen]])
    if thing_classes is not None:
        _join_stuff(masks, labels.tolist(), thing_classes)
    left = masks.any((1, 2))
    pixels = np.where(covered, other_image.numpy(), image.numpy())
    return torch.from_numpy(pixels), mask_instances(labels[left], masks[left])


def _join_stuff(masks: np.ndarray, labels: list[int], thing_classes: Collection[int]) -> None:
    """Move the pixels of each stuff class to its first mask, in place."""
    first: dict[int, int] = {}
    for i, label in enumerate(labels):
        if label not in thing_classes and first.setdefault(label, i) != i:
            masks[first[label]] |= masks[i]
            masks[i] = False
