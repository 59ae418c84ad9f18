"""One's own data as one folder: what it holds is found out, registered and put in the config."""

import logging
import os
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from .absent_folder import remember_classes, use_remembered_classes
from .coco_json import parse_json
from .custom import register_boxes, register_instances, register_panoptic, register_semantic

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
# The entry that shows a split of a layout, and the results to compute, by task; first wins.
MARKS = {
    "panoptic": "panoptic_{split}.json",
    "instance": "instances_{split}.json",
    "semantic": "labels_{split}",
    "box": "instances_{split}.json",
}
RESULTS = {
    "panoptic": ["panoptic", "instance", "semantic"],
    "instance": ["instance"],
    "semantic": ["semantic"],
    "box": ["box"],
}
# A config that asks for boxes is a detector's, and keeps those of its results that the data allow.
BOX_TASKS = ("panoptic", "instance", "box")
LAYOUTS = """
  panoptic: {train,val}/ images, panoptic_{train,val}/ PNGs, panoptic_{train,val}.json (COCO)
  instance: {train,val}/ images, instances_{train,val}.json (COCO)
  semantic: {train,val}/ images, labels_{train,val}/ PNGs of class ids, classes.json (names)
  box: as instance, of which only the boxes are used"""
# What must agree between the splits.
CLASS_KEYS = (
    "thing_classes",
    "stuff_classes",
    "thing_dataset_id_to_contiguous_id",
    "stuff_dataset_id_to_contiguous_id",
    "ignore_label",
)


def use_folder(cfg: CfgNode, root: str | os.PathLike[str], task: str = "") -> None:
    """Register the data below ``root`` and make ``cfg`` train on ``train`` and test on ``val``.

    The data sets are called ``<folder>_<task>_train`` and ``_val``. Sets TRAIN, TEST and the keys
    FOLDER* of DATASETS, INPUT.ANNOTATIONS, and CLASS_IDS, NUM_CLASSES and TEST.TASKS of
    MODEL.MASK_TRANSFORMER; a split that is missing leaves TRAIN or TEST empty.

    Args:
        cfg: changed in place.
        root: a folder in one of the layouts of docs/custom_data.md.
        task: "panoptic", "instance", "semantic" or "box"; "" takes the first that the folder holds.

    Raises:
        FileNotFoundError: ``root`` or a file of the layout is missing.
        ValueError: an unknown task or layout, an invalid json, or splits with different classes.
    """
    folder = Path(os.path.abspath(os.path.expanduser(root)))
    task = task or _find_task(folder)
    names = register_folder(folder, task)
    metadata = MetadataCatalog.get(next(iter(names.values())))
    cfg.DATASETS.FOLDER, cfg.DATASETS.FOLDER_TASK = str(folder), task
    cfg.DATASETS.TRAIN = tuple(names[split] for split in names if split == "train")
    cfg.DATASETS.TEST = tuple(names[split] for split in names if split == "val")
    cfg.INPUT.ANNOTATIONS = task
    remember_classes(cfg, metadata)
    node = cfg.MODEL.MASK_TRANSFORMER
    things = cfg.DATASETS.FOLDER_THINGS
    node.CLASS_IDS = "contiguous"
    node.NUM_CLASSES = len(things) + len(cfg.DATASETS.FOLDER_STUFF)
    wanted = list(node.TEST.TASKS)
    if task in BOX_TASKS and "box" in wanted:
        results = [r for r in wanted if r in (*RESULTS[task], "box")]
    else:
        results = RESULTS[task]
    node.TEST.TASKS = [r for r in results if r not in ("instance", "box") or things]


def register_folder_of(cfg: CfgNode) -> None:
    """Register the data sets of DATASETS.FOLDER, if any, for a config that was written before.

    Where the folder is not, the config's own list of classes is enough to use the model.

    Raises:
        FileNotFoundError, ValueError: as :func:`use_folder`.
    """
    if cfg.DATASETS.FOLDER:
        folder = Path(os.path.abspath(os.path.expanduser(cfg.DATASETS.FOLDER)))
        if not folder.is_dir() and use_remembered_classes(cfg):
            return
        register_folder(folder, cfg.DATASETS.FOLDER_TASK or _find_task(folder))


def register_folder(folder: Path, task: str) -> dict[str, str]:
    """Register the splits of ``folder`` and return their names; raises as :func:`use_folder`."""
    if task not in MARKS:
        raise ValueError(f"DATASETS.FOLDER_TASK is {task!r}; choose one of {list(MARKS)} or ''")
    _require_folder(folder)
    splits = _splits_of(folder, task)
    if not splits:
        raise ValueError(f"{folder} holds no data for task {task!r}. Expected layouts:{LAYOUTS}")
    names = {split: f"{folder.name}_{task}_{split}" for split in splits}
    for split, name in names.items():
        _register_split(folder, task, split, name)
    _check_same_classes(names)
    return names


def _register_split(folder: Path, task: str, split: str, name: str) -> None:
    mark, images = folder / MARKS[task].format(split=split), folder / split
    if task == "panoptic":
        register_panoptic(name, mark, folder / f"panoptic_{split}", images)
    elif task == "instance":
        register_instances(name, mark, images)
    elif task == "box":
        register_boxes(name, mark, images)
    else:
        classes = _read_classes(folder / "classes.json")
        register_semantic(name, images, mark, classes["classes"], classes.get("ignore_label", 255))


def _find_task(folder: Path) -> str:
    _require_folder(folder)
    found = [task for task in MARKS if _splits_of(folder, task)]
    if not found:
        raise ValueError(f"{folder} has none of the known layouts:{LAYOUTS}")
    if len(found) > 1:
        logger.info("%s holds data for %s; using %s", folder, " and ".join(found), found[0])
    return found[0]


def _splits_of(folder: Path, task: str) -> list[str]:
    return [split for split in SPLITS if (folder / MARKS[task].format(split=split)).exists()]


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"data folder {folder} (DATASETS.FOLDER) does not exist and the config "
            "lists no classes in DATASETS.FOLDER_THINGS and FOLDER_STUFF"
        )


def _read_classes(path: Path) -> dict[str, Any]:
    """Names, and maybe the ignore label, of a classes.json: a list or an object."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; it lists the class names")
    content = parse_json(path)
    content = {"classes": content} if isinstance(content, list) else content
    names = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f'{path} must be a list of names or {{"classes": [names], "ignore_label": id}}'
        )
    return content


def _check_same_classes(names: dict[str, str]) -> None:
    metadata = [MetadataCatalog.get(name) for name in names.values()]
    for key in CLASS_KEYS:
        first, last = metadata[0].get(key), metadata[-1].get(key)
        if first != last:
            raise ValueError(
                f"{names['train']} and {names['val']} have different classes: {key} is {first} "
                f"and {last}"
            )
