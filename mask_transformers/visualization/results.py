"""Predictions and ground truth drawn over images; all images are RGB uint8 (H, W, 3)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.structures import BitMasks, PolygonMasks
from detectron2.utils.visualizer import GenericMask

from ..data.boxes import clip_boxes, parse_box
from ..data.image_file import read_image_file
from ..data.label_maps import decode_ids
from .overlay import OPACITY, Color, Overlay, complete_metadata, enlarge, overlay_on

# Where a task is found in the output of a model and in a record, in the order of "auto".
OUTPUT_KEYS = {
    "panoptic": "panoptic_seg",
    "instance": "instances",
    "box": "instances",
    "semantic": "sem_seg",
}
INSTANCE_FIELDS = {"instance": "pred_masks", "box": "pred_boxes"}
RECORD_KEYS = {
    "panoptic": "pan_seg_file_name",
    "instance": "annotations",
    "box": "annotations",
    "semantic": "sem_seg_file_name",
}


def draw_prediction(
    image: np.ndarray,
    output: dict,
    metadata: Metadata | None = None,
    task: str = "auto",
    score_threshold: float = 0.5,
) -> np.ndarray:
    """Draw the result ``output`` of a model over ``image``.

    ``output`` is one of the dicts that a model returns in inference. ``task`` is "panoptic",
    "instance", "box", "semantic" or "auto", the first of them that ``output`` holds: so instances
    are drawn by their masks, or by their boxes where they have none; "box" draws boxes in any case.
    Instances scored below ``score_threshold`` are left out. ValueError: the output lacks the task,
    or its size is not that of the image.
    """
    task = _choose_task(task, tasks_of_output(output), OUTPUT_KEYS, "the output of the model")
    result = output[OUTPUT_KEYS[task]]
    if task == "panoptic":
        return draw_panoptic(image, result[0].cpu().numpy(), result[1], metadata)
    if task == "semantic":
        return draw_semantic(image, result.argmax(0).cpu().numpy(), metadata)
    kept = result[result.scores >= score_threshold].to("cpu")
    labels, scores = kept.pred_classes.tolist(), kept.scores.tolist()
    if task == "instance":
        return draw_instances(image, kept.pred_masks, labels, metadata, scores)
    boxes = kept.pred_boxes.tensor
    return draw_boxes(image, boxes, labels, metadata, scores, kept.image_size)


def draw_ground_truth(
    record: dict, metadata: Metadata | None = None, task: str = "auto", image: Any = None
) -> np.ndarray:
    """Draw the annotations of a data set ``record`` in Detectron2's format over its image.

    The image is read from ``file_name`` unless it is given. ``task`` as in draw_prediction:
    annotations that do not all have a ``segmentation`` are drawn by their ``bbox``.
    FileNotFoundError or ValueError name a file that cannot be read; ValueError also a record
    without these annotations.
    """
    name = str(record.get("file_name"))
    task = _choose_task(task, tasks_of_record(record), RECORD_KEYS, f"the record of {name}")
    if image is None:
        image = read_image_file(record["file_name"], "RGB")
    if task == "panoptic":
        ids = decode_ids(read_image_file(record["pan_seg_file_name"], "RGB", "label"))
        return draw_panoptic(image, ids, record["segments_info"], metadata)
    if task == "semantic":
        labels = read_image_file(record["sem_seg_file_name"], None, "label")
        return draw_semantic(image, labels, metadata)
    found = record["annotations"]
    classes = [a["category_id"] for a in found]
    if task == "box":
        return draw_boxes(image, [parse_box(a, name) for a in found], classes, metadata)
    masks = [_annotated_mask(a["segmentation"], image.shape) for a in found]
    return draw_instances(image, masks, classes, metadata)


def tasks_of_output(output: dict) -> list[str]:
    """The tasks that the ``output`` of a model can be drawn for, the best one first."""
    return [
        task
        for task, key in OUTPUT_KEYS.items()
        if key in output and (key != "instances" or output[key].has(INSTANCE_FIELDS[task]))
    ]


def tasks_of_record(record: dict) -> list[str]:
    """The tasks whose annotations a data set ``record`` holds, the best one first."""
    found = [task for task, key in RECORD_KEYS.items() if key in record]
    if not all(_has_mask(annotation) for annotation in record.get("annotations", [])):
        found.remove("instance")
    return found


def draw_panoptic(
    image: np.ndarray, ids: np.ndarray, segments: Sequence[dict], metadata: Metadata | None = None
) -> np.ndarray:
    """Draw segment ``ids`` (H, W), described by ``segments`` with contiguous ``category_id``."""
    metadata = complete_metadata(metadata, max((s["category_id"] for s in segments), default=0) + 1)
    known = np.isin(ids, [segment["id"] for segment in segments])
    ids = np.where(known, ids, -1)  # Detectron2 knows one id without a segment
    visualizer, factor = overlay_on(image, ids.shape, metadata)
    infos = [{**s, "isthing": s.get("isthing", True)} for s in segments]
    shown = torch.from_numpy(enlarge(ids.astype(np.int64), factor))
    return visualizer.draw_panoptic_seg(shown, infos, area_threshold=0, alpha=OPACITY).get_image()


def draw_semantic(
    image: np.ndarray, labels: np.ndarray, metadata: Metadata | None = None
) -> np.ndarray:
    """Draw class indices ``labels`` (H, W); the ignored label of the metadata is left out."""
    ignored = metadata.get("ignore_label", 255) if metadata is not None else 255
    seen = labels[labels != ignored]
    metadata = complete_metadata(metadata, int(seen.max()) + 1 if seen.size else 1)
    visualizer, factor = overlay_on(image, labels.shape, metadata)
    # Detectron2 leaves out what is above the known classes.
    labels = np.where(labels == ignored, len(metadata.stuff_classes), labels.astype(np.int64))
    drawn = visualizer.draw_sem_seg(enlarge(labels, factor), area_threshold=0, alpha=OPACITY)
    return drawn.get_image()


def draw_instances(
    image: np.ndarray,
    masks: torch.Tensor | Sequence[np.ndarray],
    classes: Sequence[int],
    metadata: Metadata | None = None,
    scores: Sequence[float] | None = None,
) -> np.ndarray:
    """Draw ``masks`` (n, H, W) with their ``classes`` (n,) and, if given, ``scores`` (n,)."""
    stack = np.asarray(masks, dtype=np.uint8).reshape(-1, *np.shape(masks)[1:])
    size = stack.shape[1:] if len(stack) else image.shape[:2]
    metadata = complete_metadata(metadata, max(classes, default=0) + 1)
    visualizer, factor = overlay_on(image, size, metadata)
    names, colors = _names_and_colors(visualizer, classes, scores)
    shown = [enlarge(mask, factor) for mask in stack]
    visualizer.overlay_instances(masks=shown, labels=names, assigned_colors=colors)
    return visualizer.output.get_image()


def draw_boxes(
    image: np.ndarray,
    boxes: torch.Tensor | Sequence[Sequence[float]],
    classes: Sequence[int],
    metadata: Metadata | None = None,
    scores: Sequence[float] | None = None,
    size: Sequence[int] | None = None,
) -> np.ndarray:
    """Draw ``boxes`` (n, 4), x0 y0 x1 y1 in pixels, as draw_instances does masks.

    They are cut to the image, whose size they are for; ValueError if ``size`` is another one.
    """
    height, width = size = image.shape[:2] if size is None else size
    metadata = complete_metadata(metadata, max(classes, default=0) + 1)
    visualizer, factor = overlay_on(image, size, metadata)
    names, colors = _names_and_colors(visualizer, classes, scores)
    inside = clip_boxes(np.asarray(boxes, np.float64).reshape(-1, 4), (height, width))
    visualizer.overlay_instances(boxes=inside * factor, labels=names, assigned_colors=colors)
    return visualizer.output.get_image()


def _names_and_colors(
    visualizer: Overlay, classes: Sequence[int], scores: Sequence[float] | None
) -> tuple[list[str], list[Color]]:
    names = [visualizer.metadata.thing_classes[c] for c in classes]
    if scores is not None:
        names = [f"{name} {score:.0%}" for name, score in zip(names, scores, strict=True)]
    return names, [visualizer.instance_color(c) for c in classes]


def _has_mask(annotation: dict) -> bool:
    segmentation = annotation.get("segmentation")
    return segmentation is not None and len(segmentation) > 0


def _annotated_mask(segmentation: Any, shape: Sequence[int]) -> np.ndarray:
    """A polygon list, an RLE or a bitmap of COCO to a mask (H, W)."""
    if isinstance(segmentation, list):
        polygons = PolygonMasks([segmentation])
        return BitMasks.from_polygon_masks(polygons, shape[0], shape[1]).tensor[0].numpy()
    return GenericMask(segmentation, shape[0], shape[1]).mask


def _choose_task(task: str, found: list[str], keys: dict[str, str], what: str) -> str:
    if task not in ("auto", *keys):
        raise ValueError(f"task is {task!r}; known: auto, {', '.join(keys)}")
    if not found or (task != "auto" and task not in found):
        missing = keys[task] if task != "auto" else " or ".join(dict.fromkeys(keys.values()))
        missing += " with masks" if task == "instance" else ""
        raise ValueError(f"{what} has no {missing}, needed to draw the task {task!r}")
    return found[0] if task == "auto" else task
