"""ADE20K (SceneParsing, 150 classes): semantic, panoptic and instance segmentation.

The class of the semantic and of the panoptic data set is the position in the list of 150; instance
segmentation knows only the 100 things, in the same order.
"""

from pathlib import Path

from .ade20k_classes import CATEGORIES, THINGS
from .builtin import add_instances, add_panoptic, add_semantic, datasets_root
from .records import semantic_records

FOLDER, SCRIPT = "ADEChallengeData2016", "prepare_ade20k.py"
SPLITS = {"train": "training", "val": "validation"}


def register_ade20k(datasets: Path) -> None:
    """Register ``ade20k_{sem_seg,panoptic,instance}_{train,val}`` below ``datasets``."""
    root = datasets / FOLDER
    for split, folder in SPLITS.items():
        images, instances = root / "images" / folder, root / f"ade20k_instance_{split}.json"
        add_semantic(
            f"ade20k_sem_seg_{split}",
            CATEGORIES,
            images,
            root / "annotations_detectron2" / folder,
            semantic_records,
            script=SCRIPT,
        )
        pngs = root / f"ade20k_panoptic_{split}"
        add_panoptic(
            pngs.name,
            CATEGORIES,
            images,
            pngs,
            root / f"{pngs.name}.json",
            script=SCRIPT,
            instances=instances,
            labels=root / "annotations_detectron2" / folder,  # things without instances, too
        )
        add_instances(f"ade20k_instance_{split}", THINGS, images, instances, script=SCRIPT)


register_ade20k(datasets_root())
