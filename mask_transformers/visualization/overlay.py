"""Detectron2's Visualizer with repeatable colours, and room for small images.

Every class has a fixed colour: that of the metadata, or else one computed from its index.
Instances of a class get neighbouring colours. Small images are enlarged by a whole factor.
"""

import colorsys
from collections.abc import Sequence

import numpy as np
from detectron2.data import Metadata
from detectron2.utils.visualizer import GenericMask, Visualizer

# Where an image is enlarged to, at least: pixels of its longer side.
READABLE_SIDE = 320
# More instances than this are drawn without their names, which would cover the image.
MAX_NAMES = 40
OPACITY = 0.5

Color = tuple[float, float, float]


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


class Overlay(Visualizer):
    """Detectron2's Visualizer with repeatable colours, and masks whose holes stay holes."""

    def __init__(self, image: np.ndarray, metadata: Metadata) -> None:
        super().__init__(image, metadata)
        self._random = np.random.default_rng(0)

    def instance_color(self, category: int) -> Color:
        """The next colour of an instance of a class."""
        red, green, blue = self.metadata.thing_colors[category]
        return self._jitter((red / 255, green / 255, blue / 255))

    def _jitter(self, color: Color) -> Color:
        """A neighbour of ``color``; the fewer classes there are, the further away."""
        hue, lightness, saturation = colorsys.rgb_to_hls(*color)
        reach = float(np.clip(0.5 / self.metadata.thing_count**1.5, 0.03, 0.5))
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


def overlay_on(image: np.ndarray, size: Sequence[int], metadata: Metadata) -> tuple[Overlay, int]:
    """A Visualizer over the enlarged image, and the factor; ``size`` is that of the result."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"need an RGB uint8 image (H, W, 3), got {image.dtype} {image.shape}")
    if tuple(size) != image.shape[:2]:
        raise ValueError(f"the result is of size {tuple(size)}, the image of {image.shape[:2]}")
    factor = -(-READABLE_SIDE // max(image.shape[:2]))
    if image.shape[1] * factor == 2:
        factor *= 2  # Detectron2 takes a mask of width 2 for a list of points
    return Overlay(enlarge(image, factor), metadata), factor


def enlarge(array: np.ndarray, factor: int) -> np.ndarray:
    """Repeat the pixels of an array (H, W, …) to (factor·H, factor·W, …)."""
    return array if factor == 1 else array.repeat(factor, 0).repeat(factor, 1)
