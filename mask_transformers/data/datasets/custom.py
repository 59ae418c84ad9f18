"""Registering one's own data as Detectron2 data sets, one call per format.

Folders and json files are checked at once, the image files when the records are first loaded.
Registering a name again with the same arguments changes nothing; with others it is an error.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from .category_metadata import (
    box_metadata,
    instance_metadata,
    panoptic_metadata,
    semantic_metadata,
)
from .coco_json import (
    BOX_KEYS,
    INSTANCE_KEYS,
    read_instances_json,
    read_panoptic_json,
    sorted_categories,
)
from .records import instance_records, panoptic_records, semantic_records

StrPath = str | os.PathLike[str]

# Keys that an annotation of a COCO instance json needs, and what it tells of its classes.
_OBJECTS = {
    "instance": (INSTANCE_KEYS, instance_metadata),
    "box": (BOX_KEYS, box_metadata),
}
# Arguments of every data set registered here, by name.
_registered: dict[str, tuple] = {}


def register_panoptic(
    name: str, json_file: StrPath, png_root: StrPath, image_root: StrPath
) -> None:
    """Register images with a COCO panoptic json and its folder of PNGs.

    Contiguous class ids are things first, then stuff, each by category id.

    Raises:
        FileNotFoundError: the json or a folder is missing.
        ValueError: the json is not valid, or ``name`` is taken.
    """
    json_path, pngs, images = map(_absolute, (json_file, png_root, image_root))
    arguments = ("panoptic", json_path, pngs, images)
    if _is_registered(name, arguments):
        return
    content = read_panoptic_json(json_path)
    _require_folders(pngs, images)
    metadata = panoptic_metadata(sorted_categories(content)) | {
        "panoptic_json": str(json_path),
        "panoptic_root": str(pngs),
        "image_root": str(images),
        "json_file": None,
        "ignore_label": 255,
    }
    _register(name, arguments, lambda: panoptic_records(json_path, pngs, images), metadata)


def register_instances(name: str, json_file: StrPath, image_root: StrPath) -> None:
    """Register images with a COCO instance json; raises as :func:`register_panoptic`.

    Contiguous class ids are in the order of the category ids.
    """
    _register_objects("instance", name, json_file, image_root)


def register_boxes(name: str, json_file: StrPath, image_root: StrPath) -> None:
    """As :func:`register_instances`, but annotations need no segmentation: for detectors."""
    _register_objects("box", name, json_file, image_root)


def _register_objects(kind: str, name: str, json_file: StrPath, image_root: StrPath) -> None:
    json_path, images = _absolute(json_file), _absolute(image_root)
    arguments = (kind, json_path, images)
    if _is_registered(name, arguments):
        return
    keys, to_metadata = _OBJECTS[kind]
    content = read_instances_json(json_path, keys)
    _require_folders(images)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    metadata = to_metadata(categories) | {
        "json_file": str(json_path),
        "image_root": str(images),
    }
    contiguous = metadata["thing_dataset_id_to_contiguous_id"]
    _register(name, arguments, lambda: instance_records(json_path, images, contiguous), metadata)


def register_semantic(
    name: str,
    image_root: StrPath,
    label_root: StrPath,
    class_names: Sequence[str],
    ignore_label: int = 255,
) -> None:
    """Register a folder of images and one of label PNGs with the same names.

    A pixel of a label is an index into ``class_names``, or ``ignore_label``.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: no or too many classes, an impossible ignore label, or ``name`` is taken.
    """
    images, labels = _absolute(image_root), _absolute(label_root)
    arguments = ("semantic", images, labels, tuple(class_names), ignore_label)
    if _is_registered(name, arguments):
        return
    if not 1 <= len(class_names) <= 255:
        raise ValueError(
            f"data set {name!r}: 1 to 255 classes are possible, not {len(class_names)}"
        )
    if ignore_label not in range(256):
        raise ValueError(f"data set {name!r}: the ignore label is in 0..255, not {ignore_label!r}")
    _require_folders(images, labels)
    metadata = semantic_metadata([{"name": name} for name in class_names]) | {
        "image_root": str(images),
        "sem_seg_root": str(labels),
        "ignore_label": ignore_label,
    }
    _register(name, arguments, lambda: semantic_records(images, labels), metadata)


def _is_registered(name: str, arguments: tuple) -> bool:
    if name not in DatasetCatalog:
        return False
    if _registered.get(name) == arguments:
        return True
    before = _registered.get(name)
    raise ValueError(
        f"a data set {name!r} is registered already, "
        f"{'by another call' if before is None else 'with other arguments'}: {before or ''}; "
        f"choose another name (with --data: of the folder) for {arguments}"
    )


def _register(
    name: str, arguments: tuple, load: Callable[[], list[dict]], metadata: dict[str, Any]
) -> None:
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)  # left over from a data set that was removed
    MetadataCatalog.get(name).set(**metadata)
    DatasetCatalog.register(name, load)
    _registered[name] = arguments


def _absolute(path: StrPath) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))


def _require_folders(*folders: Path) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"folder {folder} does not exist")
