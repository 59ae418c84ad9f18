"""Reading COCO json files with the checks that turn a late crash into a clear message.

What the evaluators read ("area", "iscrowd", "bbox") is asked for here too: a file without it would
train for hours and fail in its first evaluation.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

SEGMENT_KEYS = ("id", "category_id", "iscrowd", "area")
BOX_KEYS = ("id", "image_id", "category_id", "bbox", "area")
INSTANCE_KEYS = (*BOX_KEYS, "segmentation")
# Ids of a panoptic PNG are three bytes; 0 is void.
SEGMENT_IDS = range(1, 2**24)


def read_panoptic_json(path: Path) -> dict[str, Any]:
    """Content of a checked COCO panoptic json.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not valid, or contradicts itself; the message says where.
    """
    content = _read(path)
    categories = _check_categories(path, content, ("id", "name", "isthing"))
    images = {image["id"] for image in content["images"]}
    annotated: set[Any] = set()
    for annotation in content["annotations"]:
        where = f"the annotation of image {annotation.get('image_id')!r}"
        _check_keys(path, where, annotation, ("image_id", "file_name", "segments_info"))
        _check_known(path, where, annotation["image_id"], images, "images")
        if annotation["image_id"] in annotated:
            _fail(path, f"image {annotation['image_id']!r} has several annotations")
        annotated.add(annotation["image_id"])
        _check_segments(path, where, annotation["segments_info"], categories)
    return content


def read_instances_json(path: Path, keys: Iterable[str] = INSTANCE_KEYS) -> dict[str, Any]:
    """Content of a checked COCO instance json; raises as :func:`read_panoptic_json`.

    ``keys`` are those that every annotation needs: without masks, BOX_KEYS.
    """
    content = _read(path)
    categories = _check_categories(path, content, ("id", "name"))
    for image in content["images"]:
        # Polygons become masks of this size.
        _check_keys(path, f"image {image['id']!r}", image, ("height", "width"))
    images = {image["id"] for image in content["images"]}
    for annotation in content["annotations"]:
        where = f"annotation {annotation.get('id')!r}"
        _check_keys(path, where, annotation, keys)
        _check_known(path, where, annotation["image_id"], images, "images")
        _check_known(path, where, annotation["category_id"], categories, "categories")
    _check_unique(path, "annotation", (a["id"] for a in content["annotations"]))
    return content


def sorted_categories(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Categories in contiguous order: things first, then stuff, each by id."""
    return sorted(content["categories"], key=lambda c: (not c.get("isthing", 1), c["id"]))


def parse_json(path: Path) -> Any:
    """Content of a json file; ValueError names the file if it is not valid."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid json: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"annotation file {path} does not exist")
    content = parse_json(path)
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            _fail(path, f"needs a list {key!r} of objects, as in the COCO format")
    for image in content["images"]:
        _check_keys(path, f"image {image.get('id')!r}", image, ("id", "file_name"))
    _check_unique(path, "image", (image["id"] for image in content["images"]))
    return content


def _check_categories(path: Path, content: dict[str, Any], keys: Iterable[str]) -> set[Any]:
    for category in content["categories"]:
        _check_keys(path, f"category {category.get('id')!r}", category, keys)
    ids = [category["id"] for category in content["categories"]]
    if not ids:
        _fail(path, "has no categories")
    _check_unique(path, "category", ids)
    return set(ids)


def _check_segments(path: Path, where: str, segments: Any, categories: set[Any]) -> None:
    if not isinstance(segments, list):
        _fail(path, f"segments_info of {where} is not a list")
    for segment in segments:
        name = f"segment {segment.get('id')!r} in {where}"
        _check_keys(path, name, segment, SEGMENT_KEYS)
        _check_known(path, name, segment["category_id"], categories, "categories")
        if segment["id"] not in SEGMENT_IDS:
            _fail(path, f"{name}: segment ids are in 1..{SEGMENT_IDS[-1]}; 0 is void")
    _check_unique(path, f"{where}: segment", (segment["id"] for segment in segments))


def _check_keys(path: Path, where: str, entry: dict[str, Any], keys: Iterable[str]) -> None:
    missing = [key for key in keys if key not in entry]
    if missing:
        hint = "; for boxes alone, --data-task box" if missing == ["segmentation"] else ""
        _fail(path, f"{where} has no {', '.join(map(repr, missing))}{hint}")


def _check_known(path: Path, where: str, value: Any, known: set[Any], which: str) -> None:
    if value not in known:
        _fail(path, f"{where} refers to id {value!r}, which is not in {which!r}")


def _check_unique(path: Path, what: str, ids: Iterable[Any]) -> None:
    seen: set[Any] = set()
    for value in ids:
        if value in seen:
            _fail(path, f"{what} id {value!r} occurs more than once")
        seen.add(value)


def _fail(path: Path, what: str) -> NoReturn:
    raise ValueError(f"{path}: {what}")
