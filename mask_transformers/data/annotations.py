"""Annotation readers: the segments of one record, in a form that can follow its augmentation.

A reader is a function ``(record, size, num_classes, ignore_label) -> annotations`` where ``size``
is the image's (H, W). The mapper augments ``annotations.label_map`` together with the image, then
asks ``annotations.targets`` for the instances to learn: classes and boxes, and masks unless only
boxes are read.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .boxes import BoxAnnotations, SegmentBoxes, clip_boxes, parse_box
from .image_file import check_same_size, read_image_file
from .instance_masks import InstanceAnnotations, parse_segmentation
from .label_maps import VOID, LabelMapAnnotations, decode_ids, pack, segment_index

Annotations = LabelMapAnnotations | InstanceAnnotations | BoxAnnotations


def read_panoptic(
    record: dict, size: tuple[int, int], num_classes: int, ignore_label: int
) -> LabelMapAnnotations:
    """Segments of a COCO panoptic record; crowds are not learnt from, id 0 is void.

    A record without PNG and segments is an image without annotations.

    Raises:
        ValueError: the PNG and the listed segments disagree, or a category id is unknown.
    """
    segments, png = record["segments_info"], record.get("pan_seg_file_name")
    if png is None and segments:
        raise ValueError(f"{record['file_name']}: lists segments, but names no panoptic PNG")
    if png is None:
        return LabelMapAnnotations(np.full(size, VOID, np.uint8), np.zeros(0, np.int64))
    rgb = read_image_file(png, "RGB", "panoptic PNG")
    check_same_size(record["file_name"], size, png, rgb.shape)
    for segment in segments:
        _check_class(segment["category_id"], num_classes, f"segment {segment['id']} of {png}")
    index = segment_index(decode_ids(rgb), [segment["id"] for segment in segments], png)
    labels = [-1 if s.get("iscrowd", 0) else s["category_id"] for s in segments]
    return LabelMapAnnotations(pack(index, len(segments)), np.asarray(labels, np.int64))


def read_semantic(
    record: dict, size: tuple[int, int], num_classes: int, ignore_label: int
) -> LabelMapAnnotations:
    """One segment per class of a label image, whose pixels are class ids or ``ignore_label``.

    Raises:
        ValueError: the label image has more than one channel or holds an unknown class id.
    """
    path = record["sem_seg_file_name"]
    pixels = read_image_file(path, None, "label")
    check_same_size(record["file_name"], size, path, pixels.shape)
    if pixels.ndim != 2:
        raise ValueError(f"label file {path} must have one channel of class ids, not colours")
    table = np.full(257, -1, np.int16)  # class id in the file -> index in the label map
    table[:num_classes] = np.arange(num_classes)
    table[ignore_label] = VOID
    if pixels.dtype == np.uint8:
        index = table[pixels]
    else:
        pixels = pixels.astype(np.int64)
        index = table[np.where((pixels < 0) | (pixels > 255), 256, pixels)]
    unknown = index < 0
    if unknown.any():
        raise ValueError(
            f"label file {path}: class ids {np.unique(pixels[unknown])[:5].tolist()} are none of "
            f"the {num_classes} classes (MODEL.MASK_TRANSFORMER.NUM_CLASSES) nor the ignore label "
            f"{ignore_label}"
        )
    return LabelMapAnnotations(index.astype(np.uint8), np.arange(num_classes))


def read_instances(
    record: dict, size: tuple[int, int], num_classes: int, ignore_label: int
) -> InstanceAnnotations:
    """Polygons and run-length encodings of a COCO instance record, crowds left out.

    Raises:
        ValueError: a segmentation is missing or of another size, or a category id is unknown.
    """
    where = record["file_name"]
    annotations, labels = _objects(record, num_classes)
    shapes = [parse_segmentation(a.get("segmentation"), size, where) for a in annotations]
    return InstanceAnnotations(labels, shapes)


def read_boxes(
    record: dict, size: tuple[int, int], num_classes: int, ignore_label: int
) -> BoxAnnotations | SegmentBoxes:
    """Boxes of a COCO instance record, or around the segments of a COCO panoptic record.

    Crowds are left out, and so is what lies outside the image.

    Raises:
        ValueError: a box is missing or a category id unknown; and as :func:`read_panoptic`.
    """
    if "segments_info" in record:
        segments = read_panoptic(record, size, num_classes, ignore_label)
        return SegmentBoxes(segments.label_map, segments.labels)
    annotations, labels = _objects(record, num_classes)
    boxes = [parse_box(annotation, record["file_name"]) for annotation in annotations]
    return BoxAnnotations(labels, clip_boxes(np.reshape(boxes, (-1, 4)), size))


def _objects(record: dict, num_classes: int) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Annotations of a COCO instance record that are no crowds, and their classes (m,)."""
    annotations = [a for a in record["annotations"] if not a.get("iscrowd", 0)]
    for annotation in annotations:
        where = f"an annotation of {record['file_name']}"
        _check_class(annotation["category_id"], num_classes, where)
    return annotations, np.asarray([a["category_id"] for a in annotations], np.int64)


Reader = Callable[[dict, tuple[int, int], int, int], Annotations]
READERS: dict[str, Reader] = {
    "panoptic": read_panoptic,
    "instance": read_instances,
    "semantic": read_semantic,
    "box": read_boxes,
}
# The keys of which a record must have one for each reader.
RECORD_KEYS = {
    "panoptic": ("segments_info",),
    "instance": ("annotations",),
    "semantic": ("sem_seg_file_name",),
    "box": ("annotations", "segments_info"),
}


def read_annotations(
    task: str, record: dict, size: tuple[int, int], num_classes: int, ignore_label: int
) -> Annotations:
    """Annotations of ``record`` for ``task``: "panoptic", "instance", "semantic" or "box".

    Raises:
        ValueError: the record has no annotations of this kind, or wrong ones.
    """
    if not any(key in record for key in RECORD_KEYS[task]):
        keys = " or ".join(map(repr, RECORD_KEYS[task]))
        raise ValueError(
            f"{record['file_name']}: its record has no {keys}; INPUT.ANNOTATIONS is "
            f"{task!r}, which does not fit this data set"
        )
    return READERS[task](record, size, num_classes, ignore_label)


def _check_class(category: int, num_classes: int, where: str) -> None:
    if not 0 <= category < num_classes:
        raise ValueError(
            f"{where}: category id {category} is none of the {num_classes} classes "
            "(MODEL.MASK_TRANSFORMER.NUM_CLASSES)"
        )
