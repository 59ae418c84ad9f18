"""Writing the shapes data set to disk, in COCO's panoptic and instance formats."""

import json
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from iopath.common.file_io import file_lock
from PIL import Image

from ..instance_masks import mask_box, mask_entry
from ..label_maps import encode_ids
from .shapes_drawing import Scene, draw_scene
from .shapes_forms import STUFF, THINGS

# Raise this whenever the drawing changes: each version has its own folder.
VERSION = 1
SPLITS = {"train": 1000, "val": 100}
SIDE_RANGE = (128, 192)  # pixels, inclusive

# As in COCO, the ids of the data set are not contiguous.
CATEGORIES: list[dict[str, Any]] = [
    {"id": number, "name": name, "isthing": int(name in THINGS), "supercategory": kind}
    for kind, first, names in (("thing", 1, THINGS), ("stuff", 11, STUFF))
    for number, name in enumerate(names, start=first)
]
_CATEGORY_IDS = {category["name"]: category["id"] for category in CATEGORIES}
_THING_IDS = {category["id"] for category in CATEGORIES if category["isthing"]}


def shapes_scenes(
    split: str, count: int, side_range: tuple[int, int] = SIDE_RANGE
) -> Iterator[Scene]:
    """Draw the first ``count`` scenes of a split, whose sides are in ``side_range`` pixels."""
    for index in range(count):
        rng = np.random.default_rng([list(SPLITS).index(split), index])
        height, width = rng.integers(side_range[0], side_range[1] + 1, 2)
        yield draw_scene(rng, int(height), int(width))


def write_shapes(
    root: str | Path,
    split: str,
    count: int | None = None,
    side_range: tuple[int, int] = SIDE_RANGE,
) -> Path:
    """Draw ``split`` ("train" or "val") into the folder ``root`` unless it is there; its json.

    Safe against interruption and against other processes that do the same: the panoptic json
    appears last, when all it names is in place.

    Raises:
        OSError: ``root`` cannot be written.
    """
    root = Path(root)
    target = root / f"panoptic_{split}.json"
    if target.exists():
        return target
    try:
        root.mkdir(parents=True, exist_ok=True)
        with file_lock(str(target)):
            if not target.exists():
                _write_split(root, split, SPLITS[split] if count is None else count, side_range)
    except OSError as error:
        raise OSError(
            f"the shapes data set cannot be written to {root}: {error}; "
            "set DETECTRON2_DATASETS to a folder that can be written"
        ) from error
    return target


def _write_split(root: Path, split: str, count: int, side_range: tuple[int, int]) -> None:
    log = logging.getLogger(__name__)
    log.info("Drawing %d images of shapes for %s into %s", count, split, root)
    names = [split, f"panoptic_{split}", f"instances_{split}.json", f"panoptic_{split}.json"]
    with tempfile.TemporaryDirectory(prefix=f".{split}-", dir=root) as work:
        folder = Path(work)
        images, labels = folder / names[0], folder / names[1]
        images.mkdir()
        labels.mkdir()
        panoptic = _coco_header(CATEGORIES)
        instances = _coco_header([c for c in CATEGORIES if c["isthing"]])
        for index, scene in enumerate(shapes_scenes(split, count, side_range), start=1):
            _add_scene(scene, index, images, labels, panoptic, instances)
        (folder / names[2]).write_text(json.dumps(instances))
        (folder / names[3]).write_text(json.dumps(panoptic))
        for name in names:  # the panoptic json last: it stands for the whole
            if (root / name).is_dir():  # left by an interrupted run
                shutil.rmtree(root / name)
            os.replace(folder / name, root / name)


def _coco_header(categories: list[dict[str, Any]]) -> dict[str, Any]:
    info = {"description": "Shapes on textured ground", "version": str(VERSION)}
    return {"info": info, "images": [], "annotations": [], "categories": categories}


def _add_scene(
    scene: Scene, image_id: int, images: Path, labels: Path, panoptic: dict, instances: dict
) -> None:
    stem = f"{image_id:06d}"
    # Colours are not subsampled: edges of the shapes stay where the labels have them.
    Image.fromarray(scene.image).save(images / f"{stem}.jpg", quality=92, subsampling=0)
    ids, segments = _segments(scene)
    Image.fromarray(encode_ids(ids)).save(labels / f"{stem}.png")
    height, width = ids.shape
    image = {"id": image_id, "file_name": f"{stem}.jpg", "height": height, "width": width}
    panoptic["images"].append(image)
    instances["images"].append(image)
    panoptic["annotations"].append(
        {"image_id": image_id, "file_name": f"{stem}.png", "segments_info": segments}
    )
    for segment in segments:
        if segment["category_id"] in _THING_IDS:
            instances["annotations"].append(_instance(segment, ids, image_id, instances))


def _segments(scene: Scene) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The label map (H, W) under ids that are unique in the image, and COCO's segments_info."""
    ids, segments = np.zeros_like(scene.ids), []
    seen: Counter[int] = Counter()
    for index, name in scene.classes.items():
        category = _CATEGORY_IDS[name]
        seen[category] += 1
        number = 1000 * category + seen[category]
        mask = scene.ids == index
        ids[mask] = number
        segments.append(
            {
                "id": number,
                "category_id": category,
                "area": int(mask.sum()),
                "bbox": mask_box(mask),
                "iscrowd": 0,
            }
        )
    return ids, segments


def _instance(segment: dict, ids: np.ndarray, image_id: int, instances: dict) -> dict[str, Any]:
    number = len(instances["annotations"]) + 1
    return {**segment, "id": number, "image_id": image_id, **mask_entry(ids == segment["id"])}
