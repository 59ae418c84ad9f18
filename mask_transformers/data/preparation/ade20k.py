"""ADE20K (SceneParsing): semantic labels, panoptic and instance json files.

Published are, below ADEChallengeData2016, ``annotations`` (0 = other, 1..150) and, as a download
of its own, ``annotations_instance`` (red: category 1..100 of the things, green: number of the
instance, 0 for none).
"""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..datasets.ade20k import SPLITS
from ..datasets.ade20k_classes import CATEGORIES, THING_IDS, THINGS
from ..image_file import check_same_size, read_image_file
from .conversion import Conversion, for_all, missing_files, missing_folders
from .segment_files import Picture, Segments, write_instances, write_panoptic

INSTANCES = 1000  # an id of a segment is this times (class + 1), plus the number of the instance


def conversions(root: Path) -> list[Conversion]:
    """What can be made below ``root``, the folder ADEChallengeData2016."""
    return [
        make(root, split)
        for split in SPLITS
        for make in (_semantic_conversion, _panoptic_conversion, _instance_conversion)
    ]


def convert_label(label: np.ndarray) -> np.ndarray:
    """Label (H, W) uint8 with 0 for other and 1..150 to one with 0..149 and 255 for other."""
    return label.astype(np.uint8) - np.uint8(1)  # 0 wraps to 255


def read_label(path: Path) -> np.ndarray:
    """Classes (H, W) uint8 of a published label, 255 for other; ValueError names a bad file."""
    label = read_image_file(str(path), None, "label")
    if label.ndim != 2 or label.max() > len(CATEGORIES):
        raise ValueError(f"{path} is not a label image with class ids 0..{len(CATEGORIES)}")
    return convert_label(label)


def read_things(path: Path) -> Segments:
    """The instances of a published instance annotation; ValueError names a bad file."""
    pixels = read_image_file(str(path), None, "instance annotation")
    if pixels.ndim != 3 or pixels[..., 0].max() > len(THINGS):
        raise ValueError(f"{path} is not an RGB image with categories 0..{len(THINGS)} in red")
    category, instance = (pixels[..., channel].astype(np.int64) for channel in (0, 1))
    first_id = INSTANCES * (np.array([0, *THING_IDS]) + 1)[category]
    ids = np.where((category > 0) & (instance > 0), first_id + instance, 0)
    return Segments(ids, _categories(ids))


def read_segments(label: Path, instances: Path) -> Segments:
    """Instances on top of the stuff of the label; things without instances become void."""
    classes, things = read_label(label), read_things(instances)
    check_same_size(str(label), classes.shape, str(instances), things.ids.shape)
    is_stuff = np.isin(classes, [c["id"] for c in CATEGORIES if not c["isthing"]])
    stuff = np.where(is_stuff, INSTANCES * (classes.astype(np.int64) + 1), 0)
    ids = np.where(things.ids > 0, things.ids, stuff)
    return Segments(ids, _categories(ids))


def _categories(ids: np.ndarray) -> dict[int, int]:
    return {i: i // INSTANCES - 1 for i in np.unique(ids).tolist() if i}


def _semantic_conversion(root: Path, split: str) -> Conversion:
    source = root / "annotations" / SPLITS[split]
    target = root / "annotations_detectron2" / SPLITS[split]
    missing = partial(_missing, root / "images" / SPLITS[split], [source])
    return Conversion("semantic", split, missing, (target,), partial(_write_labels, source))


def _panoptic_conversion(root: Path, split: str) -> Conversion:
    folders = [root / name / SPLITS[split] for name in ("annotations", "annotations_instance")]
    targets = (root / f"ade20k_panoptic_{split}", root / f"ade20k_panoptic_{split}.json")
    images = root / "images" / SPLITS[split]
    return Conversion(
        "panoptic",
        split,
        partial(_missing, images, folders),
        targets,
        lambda paths, processes: write_panoptic(
            _pictures(images, folders), read_segments, CATEGORIES, ".png", paths, processes
        ),
    )


def _instance_conversion(root: Path, split: str) -> Conversion:
    folders = [root / "annotations_instance" / SPLITS[split]]
    images = root / "images" / SPLITS[split]
    return Conversion(
        "instance",
        split,
        partial(_missing, images, folders),
        (root / f"ade20k_instance_{split}.json",),
        lambda paths, processes: write_instances(
            _pictures(images, folders), read_things, THINGS, paths, processes
        ),
    )


def _pictures(images: Path, folders: list[Path]) -> list[Picture]:
    return [
        Picture(file.stem, file.name, tuple(folder / f"{file.stem}.png" for folder in folders))
        for file in sorted(images.glob("*.jpg"))
    ]


def _missing(images: Path, folders: list[Path]) -> list[str]:
    if messages := missing_folders(images, *folders):
        return messages
    labels = [label for picture in _pictures(images, folders) for label in picture.labels]
    if not labels:
        return [f"images *.jpg in {images}"]
    return missing_files(f"labels of the images in {images}", labels)


def _write_labels(source: Path, paths: list[Path], processes: int) -> int:
    write = partial(_write_label, folder=paths[0])
    return len(list(for_all(write, sorted(source.glob("*.png")), processes)))


def _write_label(file: Path, folder: Path) -> None:
    Image.fromarray(read_label(file)).save(folder / file.name)
