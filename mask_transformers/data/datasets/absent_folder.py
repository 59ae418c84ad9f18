"""A model of one's own data where the data are not: its classes, from the config that it wrote."""

from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from .category_metadata import (
    box_metadata,
    instance_metadata,
    panoptic_metadata,
    semantic_metadata,
)

_METADATA = {
    "panoptic": panoptic_metadata,
    "instance": instance_metadata,
    "semantic": semantic_metadata,
    "box": box_metadata,
}


def remember_classes(cfg: CfgNode, metadata) -> None:
    """Write the names of the classes into DATASETS.FOLDER_THINGS and FOLDER_STUFF."""
    # A panoptic data set lists all its classes as stuff too, things first.
    names = list(metadata.get("stuff_classes") or metadata.thing_classes)
    things = len(metadata.get("thing_dataset_id_to_contiguous_id") or {})
    cfg.DATASETS.FOLDER_THINGS, cfg.DATASETS.FOLDER_STUFF = names[:things], names[things:]


def use_remembered_classes(cfg: CfgNode) -> bool:
    """Set the metadata of the data sets from the config; whether it holds any classes."""
    node = cfg.DATASETS
    categories = [
        {"id": index, "name": name, "isthing": index < len(node.FOLDER_THINGS)}
        for index, name in enumerate([*node.FOLDER_THINGS, *node.FOLDER_STUFF])
    ]
    if not categories or node.FOLDER_TASK not in _METADATA:
        return False
    for name in (*node.TRAIN, *node.TEST):
        if not MetadataCatalog.get(name).get("evaluator_type"):
            MetadataCatalog.get(name).set(**_METADATA[node.FOLDER_TASK](categories))
    return True


def require_folder_of(cfg: CfgNode) -> None:
    """FileNotFoundError when the config's own data are not there."""
    folder = Path(cfg.DATASETS.FOLDER).expanduser()
    if cfg.DATASETS.FOLDER and not folder.is_dir():
        raise FileNotFoundError(
            f"data folder {folder} (DATASETS.FOLDER) does not exist; name another place of the "
            "data with --data"
        )
