"""Dataset records of one's own data, in Detectron2's format; they are made when first asked for."""

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from detectron2.data.datasets.coco import load_coco_json

from ..image_file import IMAGE_SUFFIXES
from .coco_json import read_panoptic_json, sorted_categories

# Missing files named in one message.
NAMED_FILES = 5


def panoptic_records(
    json_file: Path,
    png_root: Path,
    image_root: Path,
    contiguous: Mapping[int, int] | None = None,
    image_path: Callable[[dict], str] = itemgetter("file_name"),
) -> list[dict[str, Any]]:
    """One record per image of a COCO panoptic json; an image without annotation has no PNG.

    ``contiguous`` gives the class of every category id, by default things first, then by id;
    ``image_path`` the file below ``image_root`` of an image of the json.

    Raises:
        FileNotFoundError: images or PNGs are missing; the message names some.
        ValueError: a segment has a category that ``contiguous`` lacks.
    """
    content = read_panoptic_json(json_file)
    if contiguous is None:
        contiguous = {c["id"]: i for i, c in enumerate(sorted_categories(content))}
    is_thing = {c["id"]: bool(c["isthing"]) for c in content["categories"]}
    annotations = {a["image_id"]: a for a in content["annotations"]}
    records = []
    for image in content["images"]:
        record = {"file_name": str(image_root / image_path(image)), "image_id": image["id"]}
        record |= {key: image[key] for key in ("height", "width") if key in image}
        annotation = annotations.get(image["id"], {"segments_info": []})
        if "file_name" in annotation:
            record["pan_seg_file_name"] = str(png_root / annotation["file_name"])
        record["segments_info"] = [
            {
                **segment,
                "category_id": _class_of(segment, contiguous, json_file),
                "isthing": is_thing[segment["category_id"]],
            }
            for segment in annotation["segments_info"]
        ]
        records.append(record)
    require_files(f"images of {json_file}", (record["file_name"] for record in records))
    labels = (r["pan_seg_file_name"] for r in records if "pan_seg_file_name" in r)
    require_files(f"panoptic PNGs of {json_file}", labels)
    return records


def instance_records(
    json_file: Path, image_root: Path, contiguous: Mapping[int, int]
) -> list[dict[str, Any]]:
    """One record per image of a COCO instance json; ``contiguous``: class of a category id.

    Raises:
        FileNotFoundError: images are missing; the message names some.
        ValueError: an annotation has a category that ``contiguous`` lacks.
    """
    # Without the name of a data set Detectron2 leaves category ids and metadata alone.
    records = load_coco_json(str(json_file), str(image_root))
    for record in records:
        for annotation in record["annotations"]:
            annotation["category_id"] = _class_of(annotation, contiguous, json_file)
    require_files(f"images of {json_file}", (record["file_name"] for record in records))
    return records


def _class_of(entry: dict, contiguous: Mapping[int, int], json_file: Path) -> int:
    if entry["category_id"] not in contiguous:
        raise ValueError(
            f"{json_file}: category id {entry['category_id']} is none of {sorted(contiguous)}"
        )
    return contiguous[entry["category_id"]]


def semantic_records(image_root: Path, label_root: Path) -> list[dict[str, Any]]:
    """One record per image; its label is the PNG of the same relative name below ``label_root``.

    Raises:
        FileNotFoundError: an image has no label or a label no image.
        ValueError: two images have the same name but for their suffix.
    """
    images = _by_name(image_root, IMAGE_SUFFIXES)
    labels = _by_name(label_root, {".png"})
    require_files(
        f"labels of the images in {image_root}",
        (str(label_root / f"{name}.png") for name in images),
    )
    orphans = [str(labels[name]) for name in sorted(labels.keys() - images.keys())]
    if orphans:
        raise FileNotFoundError(
            f"{len(orphans)} labels have no image in {image_root}: {_some(orphans)}"
        )
    return [
        {"file_name": str(images[n]), "sem_seg_file_name": str(labels[n]), "image_id": n}
        for n in sorted(images)
    ]


def _by_name(root: Path, suffixes: set[str]) -> dict[str, Path]:
    """Files below ``root`` by their relative path without suffix."""
    files: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        name = path.relative_to(root).with_suffix("").as_posix()
        if name in files:
            raise ValueError(f"{files[name]} and {path} have the same name but for their suffix")
        files[name] = path
    return files


def require_files(what: str, paths: Iterable[str]) -> None:
    """FileNotFoundError counts the ``paths`` that are no files and names some."""
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} {what} do not exist: {_some(missing)}")


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:NAMED_FILES]) + (", …" if len(paths) > NAMED_FILES else "")
