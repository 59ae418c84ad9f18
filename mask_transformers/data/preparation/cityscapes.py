"""Cityscapes: panoptic and instance json files and train ids from gtFine.

Published are, below gtFine/<split>/<city>, ``*_gtFine_labelIds.png`` (label id of every pixel) and
``*_gtFine_instanceIds.png`` (1000 × label id + number for instances; the label id alone for stuff
and for groups of things).
"""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..datasets.cityscapes import CATEGORIES, IMAGE_SUFFIX, LABEL_SUFFIX, SPLITS, THINGS, image_path
from ..image_file import read_image_file
from .conversion import Conversion, for_all, missing_files, missing_folders
from .segment_files import Picture, Segments, write_instances, write_panoptic

INSTANCES = 1000
ID_SUFFIXES = {"labels": "_gtFine_labelIds.png", "instances": "_gtFine_instanceIds.png"}
THING_IDS = frozenset(category["id"] for category in THINGS)
EVALUATED = frozenset(category["id"] for category in CATEGORIES)
IGNORED = 255


def conversions(root: Path) -> list[Conversion]:
    """What can be made below ``root``, the folder cityscapes."""
    return [
        make(root, split)
        for split in SPLITS
        for make in (_semantic_conversion, _panoptic_conversion, _instance_conversion)
    ]


def read_train_ids(path: Path) -> np.ndarray:
    """Train ids (H, W) uint8 of a file of label ids, 255 where none; ValueError names the file."""
    label = read_image_file(str(path), None, "label")
    if label.ndim != 2:
        raise ValueError(f"{path} is not an image of label ids")
    table = np.full(256, IGNORED, np.uint8)
    for category in CATEGORIES:
        table[category["id"]] = category["trainId"]
    return table[label.astype(np.uint8)]


def read_segments(path: Path) -> Segments:
    """Segments of a file of instance ids, in classes that are evaluated."""
    pixels = read_image_file(str(path), None, "instance ids")
    if pixels.ndim != 2:
        raise ValueError(f"{path} is not an image of instance ids")
    pixels = pixels.astype(np.int64)
    label = np.where(pixels < INSTANCES, pixels, pixels // INSTANCES)
    ids = np.where(np.isin(label, sorted(EVALUATED)), pixels, 0)
    present = [i for i in np.unique(ids).tolist() if i]
    categories = {i: i if i < INSTANCES else i // INSTANCES for i in present}
    return Segments(ids, categories, frozenset(i for i in present if i in THING_IDS))


def _semantic_conversion(root: Path, split: str) -> Conversion:
    sources = _id_files(root, split, "labels")
    targets = tuple(_sibling(s, ID_SUFFIXES["labels"], LABEL_SUFFIX) for s in sources)
    missing, write = partial(_missing, root, split, "labels"), partial(_write_train_ids, sources)
    return Conversion("semantic", split, missing, targets, write)


def _panoptic_conversion(root: Path, split: str) -> Conversion:
    target = root / "gtFine" / f"cityscapes_panoptic_{split}"
    categories = _json_categories(CATEGORIES)
    return Conversion(
        "panoptic",
        split,
        partial(_missing, root, split, "instances"),
        (target, target.with_suffix(".json")),
        lambda paths, processes: write_panoptic(
            _pictures(root, split),
            read_segments,
            categories,
            "_gtFine_panoptic.png",
            paths,
            processes,
        ),
    )


def _instance_conversion(root: Path, split: str) -> Conversion:
    return Conversion(
        "instance",
        split,
        partial(_missing, root, split, "instances"),
        (root / "gtFine" / f"cityscapes_instance_{split}.json",),
        lambda paths, processes: write_instances(
            _pictures(root, split), read_segments, _json_categories(THINGS), paths, processes
        ),
    )


def _json_categories(categories: list[dict]) -> list[dict]:
    return [{key: c[key] for key in ("id", "name", "isthing", "color")} for c in categories]


def _id_files(root: Path, split: str, kind: str) -> list[Path]:
    return sorted((root / "gtFine" / split).glob(f"*/*{ID_SUFFIXES[kind]}"))


def _sibling(file: Path, old: str, new: str) -> Path:
    return file.with_name(file.name.removesuffix(old) + new)


def _pictures(root: Path, split: str) -> list[Picture]:
    pictures = []
    for file in _id_files(root, split, "instances"):
        image_id = file.name.removesuffix(ID_SUFFIXES["instances"])
        pictures.append(Picture(image_id, image_path(image_id), (file,)))
    return pictures


def _missing(root: Path, split: str, kind: str) -> list[str]:
    images, labels = root / "leftImg8bit" / split, root / "gtFine" / split
    if messages := missing_folders(images, labels):
        return messages
    found = sorted(images.glob(f"*/*{IMAGE_SUFFIX}"))
    wanted = [
        labels / file.parent.name / (file.name.removesuffix(IMAGE_SUFFIX) + ID_SUFFIXES[kind])
        for file in found
    ]
    if not found:
        return [f"images *{IMAGE_SUFFIX} in the folders of cities in {images}"]
    return missing_files(f"labels of the images in {images}", wanted)


def _write_train_ids(sources: list[Path], paths: list[Path], processes: int) -> int:
    pairs = list(zip(sources, paths, strict=True))
    return len(list(for_all(_write_train_id_file, pairs, processes)))


def _write_train_id_file(pair: tuple[Path, Path]) -> None:
    source, target = pair
    Image.fromarray(read_train_ids(source)).save(target, format="PNG")
