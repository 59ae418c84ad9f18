"""Mapillary Vistas v1.2: panoptic and semantic segmentation.

65 of its 66 classes are evaluated; the last one, label 65, is "unlabeled" and ignored.
"""

from pathlib import Path

from .builtin import add_panoptic, add_semantic, datasets_root
from .mapillary_classes import CATEGORIES
from .records import semantic_records

FOLDER, SCRIPT = "mapillary_vistas", "prepare_mapillary_vistas.py"
SPLITS = {"train": "training", "val": "validation"}
JSON_NAME = "panoptic_2018.json"
IGNORE_LABEL = 65


def register_mapillary(datasets: Path) -> None:
    """Register ``mapillary_vistas_{panoptic,sem_seg}_{train,val}`` below ``datasets``."""
    for split, folder in SPLITS.items():
        root = datasets / FOLDER / folder
        images, pngs = root / "images", root / "panoptic"
        add_panoptic(
            f"mapillary_vistas_panoptic_{split}",
            CATEGORIES,
            images,
            pngs,
            pngs / JSON_NAME,
            script=SCRIPT,
            image_path=lambda image: f"{Path(image['file_name']).stem}.jpg",
            ignore_label=IGNORE_LABEL,
        )
        add_semantic(
            f"mapillary_vistas_sem_seg_{split}",
            CATEGORIES,
            images,
            root / "labels",
            semantic_records,
            script=SCRIPT,
            ignore_label=IGNORE_LABEL,
        )


register_mapillary(datasets_root())
