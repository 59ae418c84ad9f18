"""Mapillary Vistas v1.2: everything is published; panoptic files are made if they were left out.

``instances`` holds 256 × label + number of the instance, in 16 bits.
"""

from functools import partial
from pathlib import Path

import numpy as np

from ..datasets.mapillary import JSON_NAME, SPLITS
from ..datasets.mapillary_classes import CATEGORIES
from ..image_file import read_image_file
from .conversion import Conversion, missing_files, missing_folders
from .segment_files import Picture, Segments, write_panoptic

INSTANCES = 256
UNLABELED = len(CATEGORIES)
IS_THING = np.array([category["isthing"] for category in CATEGORIES] + [0], bool)


def conversions(root: Path) -> list[Conversion]:
    """What can be made, or only checked, below ``root``, the folder mapillary_vistas."""
    return [
        make(root / folder, split)
        for split, folder in SPLITS.items()
        for make in (_semantic_check, _panoptic_conversion)
    ]


def read_segments(path: Path) -> Segments:
    """Segments of a file of ``instances``: instances of things, and stuff class by class."""
    pixels = read_image_file(str(path), None, "instance annotation").astype(np.int64)
    label, instance = pixels // INSTANCES, pixels % INSTANCES
    if pixels.ndim != 2 or label.max() > UNLABELED:
        raise ValueError(f"{path} is not an image of {INSTANCES} × label + instance (v1.2)")
    # The id 0 is void: labels count from 1.
    ids = INSTANCES * (label + 1) + np.where(IS_THING[label], instance, 0)
    ids = np.where(label == UNLABELED, 0, ids)
    return Segments(ids, {i: i // INSTANCES for i in np.unique(ids).tolist() if i})


def _semantic_check(root: Path, split: str) -> Conversion:
    return Conversion("semantic", split, partial(_missing, root, "labels"))


def _panoptic_conversion(root: Path, split: str) -> Conversion:
    target = root / "panoptic"
    if (target / JSON_NAME).is_file():  # as published, which must not be replaced
        return Conversion("panoptic", split, lambda: missing_folders(root / "images"))
    if target.exists():
        message = f"file {target / JSON_NAME}: complete its folder, or move that away"
        return Conversion("panoptic", split, lambda: [message])
    missing = partial(_missing, root, "instances")
    return Conversion("panoptic", split, missing, (target,), partial(_write_panoptic, root))


def _write_panoptic(root: Path, paths: list[Path], processes: int) -> int:
    [folder] = paths
    pictures, json_file = _pictures(root, "instances"), folder / JSON_NAME
    return write_panoptic(
        pictures, read_segments, CATEGORIES, ".png", (folder, json_file), processes
    )


def _pictures(root: Path, labels: str) -> list[Picture]:
    return [
        Picture(file.stem, file.name, (root / labels / f"{file.stem}.png",))
        for file in sorted((root / "images").glob("*.jpg"))
    ]


def _missing(root: Path, labels: str) -> list[str]:
    images = root / "images"
    if messages := missing_folders(images, root / labels):
        return messages
    files = [picture.labels[0] for picture in _pictures(root, labels)]
    if not files:
        return [f"images *.jpg in {images}"]
    return missing_files(f"labels of the images in {images}", files)
