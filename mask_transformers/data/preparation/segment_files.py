"""Writing COCO's panoptic and instance formats from maps of segment ids."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..instance_masks import mask_box, mask_entry
from ..label_maps import encode_ids
from .conversion import for_all


@dataclass(frozen=True)
class Segments:
    """Segments of one image: ``ids`` (H, W), 0 for void, and the category of every id.

    Ids in ``crowds`` are groups whose members are not told apart.
    """

    ids: np.ndarray
    categories: dict[int, int]
    crowds: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """An image of a data set, and the label files that its segments are read from."""

    image_id: str
    file_name: str
    labels: tuple[Path, ...]


Reader = Callable[..., Segments]  # of the label files of a picture


def write_panoptic(
    pictures: Sequence[Picture],
    read: Reader,
    categories: Sequence[dict[str, Any]],
    suffix: str,
    paths: Sequence[Path],
    processes: int,
) -> int:
    """Write a folder of PNGs <image id><suffix> and the json, ``paths``; the number of images."""
    folder, json_file = paths
    write = partial(_panoptic_entry, read=read, suffix=suffix, folder=folder)
    images, annotations = [], []
    for image, annotation in for_all(write, pictures, processes):
        images.append(image)
        annotations.append(annotation)
    _write(json_file, images, annotations, categories)
    return len(images)


def write_instances(
    pictures: Sequence[Picture],
    read: Reader,
    categories: Sequence[dict[str, Any]],
    paths: Sequence[Path],
    processes: int,
) -> int:
    """Write the json of the segments of ``categories``, the one of ``paths``."""
    [json_file] = paths
    encode = partial(_instance_entries, read=read, kept={c["id"] for c in categories})
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, entries in for_all(encode, pictures, processes):
        images.append(image)
        # COCO's evaluation takes id 0 for "no match".
        annotations += [{"id": len(annotations) + i, **e} for i, e in enumerate(entries, 1)]
    _write(json_file, images, annotations, categories)
    return len(images)


def _panoptic_entry(picture: Picture, read: Reader, suffix: str, folder: Path):
    segments = read(*picture.labels)
    name = f"{picture.image_id}{suffix}"
    Image.fromarray(encode_ids(segments.ids)).save(folder / name)
    infos = []
    for segment_id in _present(segments.ids):
        mask = segments.ids == segment_id
        infos.append(
            {
                "id": segment_id,
                "category_id": segments.categories[segment_id],
                "iscrowd": int(segment_id in segments.crowds),
                "area": int(mask.sum()),
                "bbox": mask_box(mask),
            }
        )
    annotation = {"image_id": picture.image_id, "file_name": name, "segments_info": infos}
    return _image(picture, segments), annotation


def _instance_entries(picture: Picture, read: Reader, kept: set[int]):
    segments = read(*picture.labels)
    things = [i for i in _present(segments.ids) if segments.categories[i] in kept]
    entries = [
        {
            "image_id": picture.image_id,
            "category_id": segments.categories[segment_id],
            "iscrowd": int(segment_id in segments.crowds),
            **mask_entry(segments.ids == segment_id),
        }
        for segment_id in things
    ]
    return _image(picture, segments), entries


def _present(ids: np.ndarray) -> list[int]:
    return [segment_id for segment_id in np.unique(ids).tolist() if segment_id]


def _image(picture: Picture, segments: Segments) -> dict[str, Any]:
    height, width = segments.ids.shape
    return {
        "id": picture.image_id,
        "file_name": picture.file_name,
        "width": width,
        "height": height,
    }


def _write(path: Path, images: list, annotations: list, categories: Sequence[dict]) -> None:
    content = {"images": images, "annotations": annotations, "categories": list(categories)}
    path.write_text(json.dumps(content))
