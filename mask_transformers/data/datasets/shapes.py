"""The embedded data sets shapes_panoptic_train and shapes_panoptic_val.

They are drawn on first use below ``$DETECTRON2_DATASETS`` (``./datasets`` if unset), in the format
of COCO: ``shapes_panoptic/v1/`` with ``train/``, ``panoptic_train/``, ``panoptic_train.json``,
``instances_train.json`` and the same for ``val``. What is drawn depends on nothing but VERSION.
"""

import json
import os
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco_panoptic import load_coco_panoptic_json

from .shapes_files import CATEGORIES, SPLITS, VERSION, write_shapes


def shapes_metadata() -> dict[str, Any]:
    """Class names, colours and id maps, as Detectron2's panoptic COCO metadata."""
    names = [category["name"] for category in CATEGORIES]
    order = {category["id"]: index for index, category in enumerate(CATEGORIES)}
    things = [category["id"] for category in CATEGORIES if category["isthing"]]
    colors = [(217, 72, 65), (72, 160, 75), (62, 104, 214), (235, 190, 50), (180, 80, 200)]
    colors += [(150, 110, 80), (80, 150, 150), (170, 170, 110)]
    return {
        "thing_classes": names,
        "stuff_classes": names,
        "thing_colors": colors,
        "stuff_colors": colors,
        "thing_dataset_id_to_contiguous_id": {i: order[i] for i in order if i in things},
        "stuff_dataset_id_to_contiguous_id": {i: order[i] for i in order if i not in things},
    }


def load_shapes(root: str | Path, split: str) -> list[dict[str, Any]]:
    """Records of a split in Detectron2's panoptic format; draws the split on first use."""
    target = write_shapes(root, split)
    images, labels = str(Path(root) / split), str(Path(root) / f"panoptic_{split}")
    records = load_coco_panoptic_json(str(target), images, labels, shapes_metadata())
    sizes = {image["id"]: image for image in json.loads(target.read_text())["images"]}
    for record in records:
        image = sizes[record["image_id"]]
        record["height"], record["width"] = image["height"], image["width"]
    return records


def register_shapes(datasets_root: str | Path, prefix: str = "shapes_panoptic") -> None:
    """Register ``<prefix>_train`` and ``<prefix>_val``; nothing is drawn before they are read."""
    root = Path(datasets_root) / "shapes_panoptic" / f"v{VERSION}"
    for split in SPLITS:
        name = f"{prefix}_{split}"
        DatasetCatalog.register(name, lambda split=split: load_shapes(root, split))
        MetadataCatalog.get(name).set(
            image_root=str(root / split),
            panoptic_root=str(root / f"panoptic_{split}"),
            panoptic_json=str(root / f"panoptic_{split}.json"),
            json_file=str(root / f"instances_{split}.json"),
            evaluator_type="coco_panoptic_seg",
            ignore_label=255,
            label_divisor=1000,
            **shapes_metadata(),
        )


register_shapes(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))
