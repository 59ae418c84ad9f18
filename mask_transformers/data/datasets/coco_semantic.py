"""COCO 2017 as semantic segmentation: the 133 panoptic classes as labels of pixels."""

from pathlib import Path
from typing import Any

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from .builtin import add_semantic, datasets_root
from .records import semantic_records

FOLDER, SCRIPT = "coco", "prepare_coco.py"
SPLITS = ("train", "val")

CATEGORIES: list[dict[str, Any]] = COCO_CATEGORIES


def register_coco_semantic(datasets: Path) -> None:
    """Register ``coco_2017_{train,val}_sem_seg`` below ``datasets``."""
    for split in SPLITS:
        images = datasets / FOLDER / f"{split}2017"
        labels = datasets / FOLDER / f"panoptic_semseg_{split}2017"
        name = f"coco_2017_{split}_sem_seg"
        add_semantic(name, CATEGORIES, images, labels, semantic_records, script=SCRIPT)


register_coco_semantic(datasets_root())
