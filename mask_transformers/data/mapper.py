"""From a dataset record to what a mask transformer trains on."""

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog, detection_utils
from detectron2.data import transforms as T

from .annotations import READERS, read_annotations
from .augmentations import build_augmentations
from .image_file import read_image_file

# What of a record is handed on beside the image.
KEPT_KEYS = ("file_name", "image_id", "height", "width")


class MaskTransformerMapper:
    """Reads, augments and packs one record; the same for all annotations but for their reader."""

    @configurable
    def __init__(
        self,
        is_train: bool = True,
        *,
        annotations: str,
        augmentations: Sequence[T.Augmentation | T.Transform],
        num_classes: int,
        image_format: str = "RGB",
        ignore_label: int = 255,
    ) -> None:
        """Args:
            is_train: whether annotations are read.
            annotations: "panoptic", "instance", "semantic" or "box".
            augmentations: applied to the image and its annotations; must pad label maps with 255.
            num_classes: category ids of the records are in [0, num_classes).
            image_format: channel order of the image.
            ignore_label: class id of unlabelled pixels in semantic label files.

        Raises:
            ValueError: unknown ``annotations`` or an impossible number of classes or label.
        """
        if annotations not in READERS:
            raise ValueError(f"INPUT.ANNOTATIONS is {annotations!r}; choose one of {list(READERS)}")
        if annotations == "semantic" and not (num_classes <= 255 and 0 <= ignore_label <= 255):
            raise ValueError(
                "semantic labels are bytes: at most 255 classes and an ignore label in 0..255, not "
                f"{num_classes} and {ignore_label}"
            )
        self.is_train = is_train
        self.annotations = annotations
        self.augmentations = T.AugmentationList(list(augmentations))
        self.num_classes = num_classes
        self.image_format = image_format
        self.ignore_label = ignore_label

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        """Constructor arguments from INPUT.*, NUM_CLASSES and the metadata of DATASETS.TRAIN."""
        return {
            "is_train": is_train,
            "annotations": cfg.INPUT.ANNOTATIONS,
            "augmentations": build_augmentations(cfg, is_train),
            "num_classes": cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES,
            "image_format": cfg.INPUT.FORMAT,
            "ignore_label": _ignore_label(cfg.DATASETS.TRAIN),
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """Map a record, which is left as it is.

        Returns:
            "image" (3, h, w) uint8 and, in training, "instances" with gt_classes (n,), gt_boxes
            (n, 4) and, unless the annotations are "box", gt_masks BitMasks (n, h, w), where n may
            be 0; "height" and "width" are the original ones.

        Raises:
            FileNotFoundError, ValueError: a file is missing, broken or contradicts another; the
                message names it.
        """
        record = {key: dataset_dict[key] for key in KEPT_KEYS if key in dataset_dict}
        image = read_image_file(record["file_name"], self.image_format)  # (H, W, 3)
        detection_utils.check_image_size(record, image)
        if not self.is_train:
            return record | {"image": self._augment(image, None)[0]}
        annotations = read_annotations(
            self.annotations, dataset_dict, image.shape[:2], self.num_classes, self.ignore_label
        )
        record["image"], label_map, transforms = self._augment(image, annotations.label_map)
        size = tuple(record["image"].shape[-2:])
        record["instances"] = annotations.targets(label_map, transforms, size)
        return record

    def _augment(self, image: np.ndarray, label_map: np.ndarray | None):
        augmented = T.AugInput(image, sem_seg=label_map)
        transforms = self.augmentations(augmented)
        tensor = torch.from_numpy(augmented.image.transpose(2, 0, 1).copy())  # (3, h, w)
        return tensor, augmented.sem_seg, transforms


def _ignore_label(dataset_names: Sequence[str]) -> int:
    labels = {MetadataCatalog.get(name).get("ignore_label", 255) for name in dataset_names}
    if len(labels) > 1:
        raise ValueError(
            f"the data sets of DATASETS.TRAIN {tuple(dataset_names)} have different ignore labels: "
            f"{sorted(labels)}"
        )
    return labels.pop() if labels else 255
