"""From a dataset record to what a mask transformer trains on."""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog, detection_utils
from detectron2.data import transforms as T

from .annotations import READERS, read_annotations
from .augmentations import build_augmentations
from .copy_paste import PARTNER, check_copy_paste, draw_segments, paste_segments
from .image_file import read_image_file
from .metadata import thing_classes_of

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
        thing_classes: Collection[int] | None = None,
    ) -> None:
        """Args:
            is_train: whether annotations are read.
            annotations: "panoptic", "instance", "semantic" or "box".
            augmentations: applied to the image and its annotations; must pad label maps with 255.
            num_classes: category ids of the records are in [0, num_classes).
            image_format: channel order of the image.
            ignore_label: class id of unlabelled pixels in semantic label files.
            thing_classes: classes of which copy-paste makes several segments; None: all.

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
        # Semantic labels have one segment of each class.
        self.thing_classes = () if annotations == "semantic" else thing_classes

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        """Constructor arguments from INPUT.*, NUM_CLASSES and the metadata of the data sets."""
        if is_train:
            check_copy_paste(cfg)
        return {
            "is_train": is_train,
            "annotations": cfg.INPUT.ANNOTATIONS,
            "augmentations": build_augmentations(cfg, is_train),
            "num_classes": cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES,
            "image_format": cfg.INPUT.FORMAT,
            "ignore_label": _ignore_label(cfg.DATASETS.TRAIN),
            "thing_classes": thing_classes_of(cfg),
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """Map a record, which is left as it is.

        In training, segments of the record that it has at ``copy_paste.PARTNER`` are pasted.

        Returns:
            "image" (3, h, w) uint8 and, in training, "instances" with gt_classes (n,), gt_boxes
            (n, 4) and, unless the annotations are "box", gt_masks BitMasks (n, h, w), where n may
            be 0; "height" and "width" are the original ones.

        Raises:
            FileNotFoundError, ValueError: a file is missing, broken or contradicts another; the
                message names it.
        """
        record = self._map(dataset_dict)
        if self.is_train and PARTNER in dataset_dict:
            other = self._map(dataset_dict[PARTNER])
            target, source = ((r["image"], r["instances"]) for r in (record, other))
            chosen = draw_segments(len(other["instances"]))
            record["image"], record["instances"] = paste_segments(
                target, source, chosen, self.thing_classes
            )
        return record

    def _map(self, dataset_dict: dict) -> dict:
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
