"""Augmentations of images and label maps; label maps are padded with void (255)."""

from functools import partial

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform
from PIL import Image

from .label_maps import VOID

# Grey value of padded pixels.
PAD_VALUE = 128.0
FLIPS = ("horizontal", "vertical", "none")
# Shortest sides before the crop of DETR's augmentation (section 4 of its paper).
DETR_CROP_SIZES = (400, 500, 600)


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """Augmentations that the INPUT keys ask for.

    Training is large-scale jittering (INPUT.LSJ, as in "Simple Copy-Paste", section 3) or a random
    choice of the shortest side followed by a crop (INPUT.CROP, the semantic recipe) or, as in DETR,
    following it; flips, quarter turns and colour jitter are added to each. Testing only resizes.

    Raises:
        ValueError: a key has an impossible value.
    """
    if not is_train:
        size = cfg.INPUT.MIN_SIZE_TEST
        return [T.ResizeShortestEdge(size, cfg.INPUT.MAX_SIZE_TEST, "choice")]
    augmentations = _orientation(cfg)
    augmentations += _large_scale_jitter(cfg) if cfg.INPUT.LSJ.ENABLED else _resize_and_crop(cfg)
    if cfg.INPUT.COLOR_JITTER:
        augmentations.append(ColorJitter(cfg.INPUT.FORMAT))
    return augmentations


def _orientation(cfg: CfgNode) -> list[T.Augmentation]:
    flip = cfg.INPUT.RANDOM_FLIP
    if flip not in FLIPS:
        raise ValueError(f"INPUT.RANDOM_FLIP is {flip!r}; choose one of {FLIPS}")
    augmentations: list[T.Augmentation] = []
    if flip != "none":
        vertical = flip == "vertical"
        augmentations.append(T.RandomFlip(horizontal=not vertical, vertical=vertical))
    if cfg.INPUT.RANDOM_ROTATE90:
        augmentations += [RandomQuarterTurn(), T.RandomFlip(horizontal=False, vertical=True)]
    return augmentations


def _large_scale_jitter(cfg: CfgNode) -> list[T.Augmentation]:
    node = cfg.INPUT.LSJ
    low, high = node.MIN_SCALE, node.MAX_SCALE
    shape = tuple(node.IMAGE_SHAPE) or (node.IMAGE_SIZE, node.IMAGE_SIZE)
    if len(shape) != 2 or min(shape) < 1 or not 0 < low <= high:
        raise ValueError(
            "INPUT.LSJ needs IMAGE_SIZE >= 1, or IMAGE_SHAPE of two such numbers, and 0 < "
            f"MIN_SCALE <= MAX_SCALE, not {shape}, {low} and {high}"
        )
    crop = T.FixedSizeCrop(shape, pad_value=PAD_VALUE, seg_pad_value=VOID)
    return [RandomScale(low, high, *shape), crop]


def _resize_and_crop(cfg: CfgNode) -> list[T.Augmentation]:
    node = cfg.INPUT
    resize = T.ResizeShortestEdge(
        node.MIN_SIZE_TRAIN, node.MAX_SIZE_TRAIN, node.MIN_SIZE_TRAIN_SAMPLING
    )
    augmentations: list[T.Augmentation] = [resize]
    if node.CROP.ENABLED and node.CROP.BEFORE_RESIZE:
        first_resize = T.ResizeShortestEdge(DETR_CROP_SIZES, sample_style="choice")
        crop = T.AugmentationList([first_resize, T.RandomCrop(node.CROP.TYPE, node.CROP.SIZE)])
        augmentations.insert(0, T.RandomApply(crop, prob=0.5))
    elif node.CROP.ENABLED:
        augmentations.append(_category_crop(cfg))
        if node.CROP.TYPE == "absolute":
            size = tuple(node.CROP.SIZE)
            augmentations.append(
                T.FixedSizeCrop(size, pad_value=PAD_VALUE, seg_pad_value=VOID)  # only pads here
            )
    return augmentations


def _category_crop(cfg: CfgNode) -> T.Augmentation:
    node, share = cfg.INPUT.CROP, cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA
    if share >= 1.0:
        return T.RandomCrop(node.TYPE, node.SIZE)
    if cfg.INPUT.ANNOTATIONS != "semantic":
        raise ValueError(
            f"INPUT.CROP.SINGLE_CATEGORY_MAX_AREA is {share}, which needs INPUT.ANNOTATIONS "
            f"'semantic', not {cfg.INPUT.ANNOTATIONS!r}"
        )
    return T.RandomCrop_CategoryAreaConstraint(node.TYPE, node.SIZE, share, VOID)


class RandomScale(T.ResizeScale):
    """Resize by a random scale; even the thinnest image keeps a pixel in each direction."""

    def get_transform(self, image: np.ndarray) -> Transform:
        """A resize of ``image`` (H, W, C) to fit the target box times the scale drawn."""
        drawn = super().get_transform(image)
        size = max(drawn.new_h, 1), max(drawn.new_w, 1)
        return T.ResizeTransform(drawn.h, drawn.w, *size, drawn.interp)


class QuarterTurnTransform(Transform):
    """``turns`` quarter turns, counter-clockwise, of an image of ``height`` x ``width``."""

    def __init__(self, height: int, width: int, turns: int) -> None:
        super().__init__()
        self.height, self.width, self.turns = height, width, turns % 4

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Turn an image (H, W) or (H, W, C)."""
        return np.rot90(img, self.turns)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Turn points (P, 2) of x and y in pixels, pixel edges being whole numbers."""
        height, width = self.height, self.width
        for _ in range(self.turns):
            coords = np.stack([coords[:, 1], width - coords[:, 0]], axis=1)
            height, width = width, height
        return coords

    def inverse(self) -> Transform:
        """The turns back."""
        if self.turns % 2:
            return QuarterTurnTransform(self.width, self.height, -self.turns)
        return QuarterTurnTransform(self.height, self.width, -self.turns)


class RandomQuarterTurn(T.Augmentation):
    """No, one, two or three quarter turns, equally often."""

    def get_transform(self, image: np.ndarray) -> Transform:
        """The turn drawn for ``image`` (H, W, C)."""
        height, width = image.shape[:2]
        return QuarterTurnTransform(height, width, int(np.random.randint(4)))


class ColorJitter(T.Augmentation):
    """Photometric distortion of SSD (section 2.2), every part with probability 1/2.

    Brightness moves by up to 32 of 255, contrast and saturation are scaled by 0.5 to 1.5, and hue
    turns by up to 36 degrees. Label maps and coordinates stay as they are.
    """

    def __init__(
        self,
        image_format: str = "RGB",
        brightness: float = 32.0,
        contrast: float = 0.5,
        saturation: float = 0.5,
        hue: float = 36.0,
    ) -> None:
        """``image_format`` is "RGB" or "BGR"; the others are the largest changes."""
        super().__init__()
        if image_format not in ("RGB", "BGR"):
            raise ValueError(f"colour jitter needs INPUT.FORMAT RGB or BGR, not {image_format!r}")
        self.image_format = image_format
        self.brightness, self.contrast = brightness, contrast
        self.saturation, self.hue = saturation, hue

    def get_transform(self, image: np.ndarray) -> Transform:
        """A change of colours, drawn once for ``image`` (H, W, 3) uint8."""
        operation = partial(
            change_colors,
            brightness=self._draw(self.brightness),
            contrast=1.0 + self._draw(self.contrast),
            saturation=1.0 + self._draw(self.saturation),
            hue=self._draw(self.hue),
            bgr=self.image_format == "BGR",
        )
        return T.ColorTransform(operation)

    def _draw(self, largest: float) -> float:
        return float(np.random.uniform(-largest, largest)) if np.random.random() < 0.5 else 0.0


def change_colors(
    image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float, bgr: bool
) -> np.ndarray:
    """Image (H, W, 3) uint8 with added brightness, scaled contrast and saturation, turned hue."""
    table = np.clip((np.arange(256) + brightness) * contrast, 0, 255).astype(np.uint8)
    image = table[image]
    if saturation == 1.0 and hue == 0.0:
        return image
    rgb = np.ascontiguousarray(image[..., ::-1] if bgr else image)
    hues, saturations, values = Image.fromarray(rgb).convert("HSV").split()
    turn = round(hue / 360 * 256)
    hues = hues.point([(old + turn) % 256 for old in range(256)])
    saturations = saturations.point([min(int(old * saturation), 255) for old in range(256)])
    changed = np.asarray(Image.merge("HSV", (hues, saturations, values)).convert("RGB"))
    return changed[..., ::-1] if bgr else changed
