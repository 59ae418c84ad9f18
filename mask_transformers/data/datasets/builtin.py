"""Registering data sets under their usual names, below ``$DETECTRON2_DATASETS``.

Nothing is read before the records are asked for; what is missing then is named together with the
script that makes it. A name that Detectron2 has registered is taken over.
"""

import os
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from .category_metadata import (
    contiguous_ids,
    instance_metadata,
    panoptic_metadata,
    semantic_metadata,
)
from .records import instance_records, panoptic_records

Categories = Sequence[dict[str, Any]]


def datasets_root() -> Path:
    """The folder ``$DETECTRON2_DATASETS``, or ``./datasets`` if it is not set."""
    return Path(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))


def add_panoptic(
    name: str,
    categories: Categories,
    images: Path,
    pngs: Path,
    json_file: Path,
    *,
    script: str,
    instances: Path | None = None,
    labels: Path | None = None,
    image_path: Callable[[dict], str] = itemgetter("file_name"),
    ignore_label: int = 255,
) -> None:
    """Register a COCO panoptic json whose classes are ``categories`` in this order.

    ``instances`` is a COCO instance json of the things, for AP; ``labels`` a folder of label images
    for mIoU, which would else be that of the panoptic PNGs; ``script`` (in datasets/) makes what is
    missing; ``image_path`` as in ``panoptic_records``.
    """
    contiguous = contiguous_ids(categories)

    def load() -> list[dict]:
        _require(script, images, pngs, json_file)
        return panoptic_records(json_file, pngs, images, contiguous, image_path)

    metadata = panoptic_metadata(categories) | {
        "panoptic_json": str(json_file),
        "panoptic_root": str(pngs),
        "image_root": str(images),
        "json_file": str(instances) if instances else None,
        "sem_seg_root": str(labels) if labels else None,
        "ignore_label": ignore_label,
    }
    _add(name, load, metadata)


def add_instances(
    name: str, categories: Categories, images: Path, json_file: Path, *, script: str
) -> None:
    """Register a COCO instance json; arguments as in :func:`add_panoptic`."""
    contiguous = contiguous_ids(categories)

    def load() -> list[dict]:
        _require(script, images, json_file)
        return instance_records(json_file, images, contiguous)

    metadata = instance_metadata(categories) | {
        "json_file": str(json_file),
        "image_root": str(images),
    }
    _add(name, load, metadata)


def add_semantic(
    name: str,
    categories: Categories,
    images: Path,
    labels: Path,
    records: Callable[[Path, Path], list[dict]],
    *,
    script: str,
    ignore_label: int = 255,
) -> None:
    """Register label images of class indices; ``records`` pairs the images with the labels."""

    def load() -> list[dict]:
        _require(script, images, labels)
        return records(images, labels)

    metadata = semantic_metadata(categories) | {
        "image_root": str(images),
        "sem_seg_root": str(labels),
        "ignore_label": ignore_label,
    }
    _add(name, load, metadata)


def _require(script: str, *paths: Path) -> None:
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"missing: {', '.join(missing)}; see datasets/README.md for the layout and run "
            f"datasets/{script} to convert what was downloaded"
        )


def _add(name: str, load: Callable[[], list[dict]], metadata: dict[str, Any]) -> None:
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(**metadata)
