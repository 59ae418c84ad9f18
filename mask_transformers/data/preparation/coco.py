"""COCO 2017: labels of pixels from the panoptic annotations."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..datasets.category_metadata import contiguous_ids
from ..datasets.coco_json import read_panoptic_json
from ..datasets.coco_semantic import CATEGORIES, SPLITS
from ..image_file import read_image_file
from ..label_maps import decode_ids, segment_index
from .conversion import Conversion, for_all, missing_files, missing_folders

IGNORED = 255
CONTIGUOUS = contiguous_ids(CATEGORIES)


def conversions(root: Path) -> list[Conversion]:
    """What can be made or checked below ``root``, the folder coco."""
    makers = (_semantic_conversion, _instance_check)
    return [make(root, split) for make in makers for split in SPLITS]


def class_label(png: Path, segments: list[dict]) -> np.ndarray:
    """Classes (H, W) uint8 of a panoptic PNG, 255 where it is void.

    ValueError: the PNG and the listed ``segments`` disagree, or a category is unknown.
    """
    unknown = [s["category_id"] for s in segments if s["category_id"] not in CONTIGUOUS]
    if unknown:
        raise ValueError(f"{png}: category ids {unknown} are none of COCO's 133")
    ids = decode_ids(read_image_file(str(png), "RGB", "panoptic PNG"))
    index = segment_index(ids, [segment["id"] for segment in segments], str(png))
    classes = [CONTIGUOUS[segment["category_id"]] for segment in segments]
    return np.array([*classes, IGNORED], np.uint8)[index]  # index -1 is void


def _instance_check(root: Path, split: str) -> Conversion:
    json_file = root / "annotations" / f"instances_{split}2017.json"
    images = root / f"{split}2017"
    return Conversion(
        "instance",
        split,
        lambda: missing_folders(images) + missing_files("annotation file", [json_file]),
    )


def _semantic_conversion(root: Path, split: str) -> Conversion:
    pngs = root / f"panoptic_{split}2017"
    json_file = root / "annotations" / f"panoptic_{split}2017.json"
    return Conversion(
        "semantic",
        split,
        lambda: missing_folders(pngs) + missing_files("annotation file", [json_file]),
        (root / f"panoptic_semseg_{split}2017",),
        partial(_write_labels, pngs, json_file),
    )


def _write_labels(pngs: Path, json_file: Path, paths: list[Path], processes: int) -> int:
    write = partial(_write_label, pngs=pngs, folder=paths[0])
    annotations = read_panoptic_json(json_file)["annotations"]
    return len(list(for_all(write, annotations, processes)))


def _write_label(annotation: dict, pngs: Path, folder: Path) -> None:
    name = annotation["file_name"]
    Image.fromarray(class_label(pngs / name, annotation["segments_info"])).save(folder / name)
