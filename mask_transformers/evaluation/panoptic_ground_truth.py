"""Ground truth for instance AP and mIoU out of panoptic annotations, without extra label files."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.image_file import read_image_file
from ..data.instance_masks import mask_entry
from ..data.label_maps import decode_ids
from ..output_files import write_atomically


def read_panoptic_ids(path: str) -> np.ndarray:
    """Segment ids (H, W) of a COCO panoptic PNG; 0 is void."""
    return decode_ids(read_image_file(path, "RGB", "panoptic PNG"))


def write_instance_json(
    records: Sequence[dict], categories: Sequence[dict], path: Path, source: str
) -> None:
    """Write the things of panoptic ``records`` as a COCO instance json, crowds included.

    ``categories`` are COCO's, of the things, each with ``contiguous_id``. An existing file is
    kept if it was made from the same records and PNGs. ``source`` is noted in the file.
    """
    fingerprint = _fingerprint(records, categories)
    if path.exists() and json.loads(path.read_text())["info"].get("fingerprint") == fingerprint:
        return
    ids = {category["contiguous_id"]: category["id"] for category in categories}
    images, annotations = [], []
    for record in records:
        image, things = _instances_of(record, ids)
        images.append(image)
        annotations += things
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number  # 0 would read as "no match" in COCO's evaluation
    content = {
        "info": {"description": f"things of {source}", "fingerprint": fingerprint},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": c["id"], "name": c["name"]} for c in categories],
    }
    write_atomically(path, lambda file: file.write_text(json.dumps(content)))


def _fingerprint(records: Sequence[dict], categories: Sequence[dict]) -> str:
    parts = [
        [
            record["image_id"],
            record.get("pan_seg_file_name"),
            _modified(record.get("pan_seg_file_name")),
            record["segments_info"],
        ]
        for record in records
    ]
    return hashlib.sha256(json.dumps([categories, parts], default=str).encode()).hexdigest()


def _modified(path: str | None) -> int:
    return os.stat(path).st_mtime_ns if path and os.path.exists(path) else 0


def _instances_of(record: dict, ids: dict[int, int]) -> tuple[dict, list[dict]]:
    """The image and its annotations in COCO's format; ``ids`` are contiguous → data set."""
    png = record.get("pan_seg_file_name")
    if png is None:
        size = (record["height"], record["width"])
        return _image(record, size), []
    segment_ids = read_panoptic_ids(png)
    things = [segment for segment in record["segments_info"] if segment["category_id"] in ids]
    annotations = [
        _annotation(record, segment, segment_ids == segment["id"], ids) for segment in things
    ]
    return _image(record, segment_ids.shape), annotations


def _image(record: dict, size: Sequence[int]) -> dict:
    height, width = size
    name = os.path.basename(record["file_name"])
    return {"id": record["image_id"], "file_name": name, "height": height, "width": width}


def _annotation(record: dict, segment: dict, mask: np.ndarray, ids: dict[int, int]) -> dict:
    return {
        "image_id": record["image_id"],
        "category_id": ids[segment["category_id"]],
        "iscrowd": int(segment.get("iscrowd", 0)),
        **mask_entry(mask),
    }


def class_map_reader(records: Sequence[dict], ignore_label: int):
    """A loading function for ``SemSegEvaluator``: panoptic PNG → class of every pixel (H, W)."""
    segments = {record["pan_seg_file_name"]: record["segments_info"] for record in records}

    def read(path: str, dtype=int) -> np.ndarray:
        ids = read_panoptic_ids(path)
        classes = np.full(ids.shape, ignore_label, dtype=dtype)
        present, inverse = np.unique(ids, return_inverse=True)
        table = {segment["id"]: segment["category_id"] for segment in segments[path]}
        lookup = np.array([table.get(int(i), ignore_label) for i in present], dtype=dtype)
        classes[...] = lookup[inverse.reshape(ids.shape)]
        return classes

    return read
