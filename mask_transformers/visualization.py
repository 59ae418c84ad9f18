"""Pictures of predictions and of ground truth, drawn with Detectron2's Visualizer.

All images are RGB uint8 (H, W, 3). Every class has a fixed colour: that of the metadata, or else
one computed from its index; instances of a class get neighbouring colours, the same in every run.
Small images are enlarged by a whole factor, so that lines and names stay readable.
"""

import colorsys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.data.detection_utils import read_image
from detectron2.structures import BitMasks, PolygonMasks
from detectron2.utils.visualizer import GenericMask, Visualizer

TASKS = ("panoptic", "instance", "semantic")
OUTPUT_KEYS = {"panoptic": "panoptic_seg", "instance": "instances", "semantic": "sem_seg"}
RECORD_KEYS = {
    "panoptic": "pan_seg_file_name",
    "instance": "annotations",
    "semantic": "sem_seg_file_name",
}
# Where an image is enlarged to, at least: pixels of its longer side.
READABLE_SIDE = 400
# More instances than this are drawn without their names, which would cover the image.
MAX_NAMES = 40
OPACITY = 0.5

Color = tuple[float, float, float]


def draw_prediction(
    image: np.ndarray,
    output: dict,
    metadata: Metadata | None = None,
    task: str = "auto",
    score_threshold: float = 0.5,
) -> np.ndarray:
    """Draw the result ``output`` of a model over ``image``.

    ``output`` is one of the dicts that a model returns in inference. ``task`` is "panoptic",
    "instance", "semantic" or "auto", the first of them that ``output`` holds. Instances scored
    below ``score_threshold`` are left out. ValueError: the output lacks the task, or its size is
    not that of the image.
    """
    task = _choose_task(task, output, OUTPUT_KEYS, "the output of the model")
    result = output[OUTPUT_KEYS[task]]
    if task == "panoptic":
        return draw_panoptic(image, result[0].cpu().numpy(), result[1], metadata)
    if task == "semantic":
        return draw_semantic(image, result.argmax(0).cpu().numpy(), metadata)
    kept = result[result.scores >= score_threshold].to("cpu")
    labels = kept.pred_classes.tolist()
    return draw_instances(image, kept.pred_masks, labels, metadata, kept.scores.tolist())


def draw_ground_truth(
    record: dict, metadata: Metadata | None = None, task: str = "auto", image: Any = None
) -> np.ndarray:
    """Draw the annotations of a data set ``record`` in Detectron2's format over its image.

    The image is read from ``file_name`` unless it is given. ``task`` as in draw_prediction. OSError
    for a file that cannot be read, ValueError for a record without these annotations.
    """
    task = _choose_task(task, record, RECORD_KEYS, f"the record of {record.get('file_name')}")
    if image is None:
        image = read_image(record["file_name"], "RGB")
    if task == "panoptic":
        rgb = read_image(record["pan_seg_file_name"], "RGB").astype(np.int64)
        ids = rgb @ np.array([1, 256, 256**2])  # the id coding of COCO's panoptic format
        return draw_panoptic(image, ids, record["segments_info"], metadata)
    if task == "semantic":
        return draw_semantic(image, read_image(record["sem_seg_file_name"]), metadata)
    found = record["annotations"]
    masks = [_annotated_mask(a["segmentation"], image.shape) for a in found]
    return draw_instances(image, masks, [a["category_id"] for a in found], metadata)


def draw_panoptic(
    image: np.ndarray, ids: np.ndarray, segments: Sequence[dict], metadata: Metadata | None = None
) -> np.ndarray:
    """Draw segment ``ids`` (H, W), described by ``segments`` with contiguous ``category_id``."""
    metadata = complete_metadata(metadata, max((s["category_id"] for s in segments), default=0) + 1)
    known = np.isin(ids, [segment["id"] for segment in segments])
    ids = np.where(known, ids, -1)  # Detectron2 knows one id without a segment
    visualizer, factor = _visualizer(image, ids.shape, metadata)
    infos = [{**s, "isthing": s.get("isthing", True)} for s in segments]
    ids = torch.from_numpy(_enlarge(ids.astype(np.int64), factor))
    return visualizer.draw_panoptic_seg(ids, infos, area_threshold=0, alpha=OPACITY).get_image()


def draw_semantic(
    image: np.ndarray, labels: np.ndarray, metadata: Metadata | None = None
) -> np.ndarray:
    """Draw class indices ``labels`` (H, W); the ignored label of the metadata is left out."""
    ignored = metadata.get("ignore_label", 255) if metadata is not None else 255
    seen = labels[labels != ignored]
    metadata = complete_metadata(metadata, int(seen.max()) + 1 if seen.size else 1)
    visualizer, factor = _visualizer(image, labels.shape, metadata)
    # Detectron2 leaves out what is above the known classes.
    labels = np.where(labels == ignored, len(metadata.stuff_classes), labels.astype(np.int64))
    drawn = visualizer.draw_sem_seg(_enlarge(labels, factor), area_threshold=0, alpha=OPACITY)
    return drawn.get_image()


def draw_instances(
    image: np.ndarray,
    masks: torch.Tensor | Sequence[np.ndarray],
    classes: Sequence[int],
    metadata: Metadata | None = None,
    scores: Sequence[float] | None = None,
) -> np.ndarray:
    """Draw ``masks`` (n, H, W) with their ``classes`` (n,) and, if given, ``scores`` (n,)."""
    metadata = complete_metadata(metadata, max(classes, default=0) + 1)
    stack = np.asarray(masks, dtype=np.uint8).reshape(-1, *np.shape(masks)[1:])
    size = stack.shape[1:] if len(stack) else image.shape[:2]
    visualizer, factor = _visualizer(image, size, metadata)
    colors = [visualizer._jitter(_unit(metadata.thing_colors[c])) for c in classes]
    names = [metadata.thing_classes[c] for c in classes]
    if scores is not None:
        names = [f"{name} {score:.0%}" for name, score in zip(names, scores, strict=True)]
    visualizer.overlay_instances(
        masks=[_enlarge(mask, factor) for mask in stack],
        labels=names,
        assigned_colors=colors,
        alpha=OPACITY,
    )
    return visualizer.output.get_image()


def complete_metadata(metadata: Metadata | None, classes: int) -> Metadata:
    """A copy that has names and colours of things and stuff for at least ``classes`` classes."""
    known = {} if metadata is None else metadata.as_dict()
    completed = Metadata(name="drawing")
    for kind, other in (("thing", "stuff"), ("stuff", "thing")):
        names = list(known.get(f"{kind}_classes") or known.get(f"{other}_classes") or [])
        colors = list(known.get(f"{kind}_colors") or known.get(f"{other}_colors") or [])
        names += [f"class {i}" for i in range(len(names), classes)]
        colors += [class_color(i) for i in range(len(colors), len(names))]
        completed.set(**{f"{kind}_classes": names, f"{kind}_colors": colors})
    things = known.get("thing_dataset_id_to_contiguous_id") or completed.thing_classes
    return completed.set(thing_count=len(things))


def class_color(index: int) -> tuple[int, int, int]:
    """The colour (0..255) of a class without a given one: hues a golden section apart."""
    lightness = (0.55, 0.42, 0.68)[index // 8 % 3]
    red, green, blue = colorsys.hls_to_rgb(index * 0.618034 % 1, lightness, 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)


def side_by_side(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str] = (), gap: int = 6
) -> np.ndarray:
    """One picture of ``rows`` of images of any sizes, on white, with column ``titles`` above."""
    if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
        raise ValueError("side_by_side needs at least one row and rows of equal length")
    widths = [max(row[j].shape[1] for row in rows) for j in range(len(rows[0]))]
    heights = [max(image.shape[0] for image in row) for row in rows]
    top = 24 if titles else 0
    size = (top + sum(heights) + gap * (len(heights) + 1), sum(widths) + gap * (len(widths) + 1))
    canvas = np.full((*size, 3), 255, np.uint8)
    lefts = [gap + sum(widths[:j]) + gap * j for j in range(len(widths))]
    for i, row in enumerate(rows):
        y = top + gap + sum(heights[:i]) + gap * i
        for x, image in zip(lefts, row, strict=True):
            canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    for x, title in zip(lefts, titles, strict=False):
        cv2.putText(canvas, title, (x, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas


class _Overlay(Visualizer):
    """Detectron2's Visualizer with repeatable colours, and masks whose holes stay holes."""

    def __init__(self, image: np.ndarray, metadata: Metadata) -> None:
        super().__init__(image, metadata)
        self._random = np.random.default_rng(0)

    def _jitter(self, color: Color) -> Color:
        """A neighbour of ``color``; the fewer classes there are, the further away."""
        hue, lightness, saturation = colorsys.rgb_to_hls(*color)
        reach = float(np.clip(0.5 / self.metadata.thing_count, 0.03, 0.5))
        hue = (hue + self._random.uniform(-reach, reach)) % 1
        lightness = float(np.clip(lightness + self._random.uniform(-0.15, 0.15), 0.3, 0.75))
        return colorsys.hls_to_rgb(hue, lightness, saturation)

    def overlay_instances(
        self,
        *,
        boxes=None,
        labels=None,
        masks=None,
        keypoints=None,
        assigned_colors=None,
        alpha=OPACITY,
    ):
        """As the original, which fills holes and is slow for many masks: these are filled here."""
        if masks is not None and assigned_colors is not None:
            masks = self._convert_masks(masks)
            self._fill(masks, assigned_colors, alpha)
            alpha = 0
        if labels is not None and len(labels) > MAX_NAMES:
            labels = None
        return super().overlay_instances(
            boxes=boxes,
            labels=labels,
            masks=masks,
            keypoints=keypoints,
            assigned_colors=assigned_colors,
            alpha=alpha,
        )

    def _fill(self, masks: Sequence[GenericMask], colors: Sequence[Color], alpha: float) -> None:
        rgba = np.zeros((self.output.height, self.output.width, 4), np.float32)
        for k in np.argsort([-int(mask.area()) for mask in masks], kind="stable"):
            rgba[masks[k].mask.astype(bool)] = (*colors[k], alpha)  # smaller ones on top
        extent = (0, self.output.width, self.output.height, 0)
        self.output.ax.imshow(rgba, extent=extent, zorder=1, interpolation="nearest")


def _visualizer(
    image: np.ndarray, size: Sequence[int], metadata: Metadata
) -> tuple[_Overlay, int]:
    """A Visualizer over the enlarged image, and the factor; ``size`` is that of the result."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"need an RGB uint8 image (H, W, 3), got {image.dtype} {image.shape}")
    if tuple(size) != image.shape[:2]:
        raise ValueError(f"the result is of size {tuple(size)}, the image of {image.shape[:2]}")
    factor = -(-READABLE_SIDE // max(image.shape[:2]))
    if image.shape[1] * factor == 2:
        factor *= 2  # Detectron2 takes a mask of width 2 for a list of points
    return _Overlay(_enlarge(image, factor), metadata), factor


def _enlarge(array: np.ndarray, factor: int) -> np.ndarray:
    return array if factor == 1 else array.repeat(factor, 0).repeat(factor, 1)


def _annotated_mask(segmentation: Any, shape: Sequence[int]) -> np.ndarray:
    """A polygon list, an RLE or a bitmap of COCO to a mask (H, W)."""
    if isinstance(segmentation, list):
        polygons = PolygonMasks([segmentation])
        return BitMasks.from_polygon_masks(polygons, shape[0], shape[1]).tensor[0].numpy()
    return GenericMask(segmentation, shape[0], shape[1]).mask


def _choose_task(task: str, holder: dict, keys: dict[str, str], what: str) -> str:
    if task not in ("auto", *TASKS):
        raise ValueError(f"task is {task!r}; known: auto, {', '.join(TASKS)}")
    found = [t for t in TASKS if keys[t] in holder]
    if not found or (task != "auto" and task not in found):
        wanted = keys[task] if task != "auto" else " or ".join(keys.values())
        raise ValueError(f"{what} has no {wanted}, needed to draw the task {task!r}")
    return found[0] if task == "auto" else task


def _unit(color: Sequence[float]) -> Color:
    return color[0] / 255, color[1] / 255, color[2] / 255
