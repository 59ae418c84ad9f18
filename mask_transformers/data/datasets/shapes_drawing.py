"""Scenes of geometric shapes on textured ground, drawn with numpy from a random generator.

A class is told by form alone: all shapes of one scene come from one distribution of area, colour
and filling, and the ground classes differ in their pattern, not in their colours. Coordinates are
pixels; x grows to the right and y down.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from .shapes_forms import STUFF, THINGS, mix, pattern, rotate, shape_mask

MAX_OBJECTS = 12

# Radii are those of the circle of the same area, relative to the shorter side of the image.
_MIN_RADIUS, _MAX_RADIUS = 0.05, 0.3
# A shape is placed only if this share of every shape stays visible.
_MIN_VISIBLE = 0.45
_MIN_PIXELS = 16
_ATTEMPTS = 20


@dataclass
class Scene:
    """An image and its segments; id 0 is unlabelled."""

    image: np.ndarray  # (H, W, 3) uint8
    ids: np.ndarray  # (H, W) int32
    classes: dict[int, str]  # segment id -> class name


def draw_scene(rng: Generator, height: int, width: int) -> Scene:
    """Draw ground, unlabelled patch, shapes, light and noise, in this order."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    regions, names = _ground_regions(rng, x, y)
    classes = dict(enumerate(names, start=1))
    image = np.zeros((height, width, 3))
    for index, name in classes.items():
        image[regions == index] = _ground_paint(rng, name, x, y)[regions == index]
    ids = regions.astype(np.int32)
    _add_unlabelled_patch(rng, image, ids, x, y)
    _add_objects(rng, image, ids, classes, x, y)
    _drop_tiny_segments(ids, classes)
    return Scene(_light_and_noise(rng, image, x, y), ids, classes)


def _ground_regions(rng: Generator, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Cut the plane by borders into one to three regions: numbers from 1 (H, W), class names."""
    count = int(rng.integers(1, 4))
    regions = np.ones(x.shape, dtype=np.int64)
    for index in range(2, count + 1):
        regions[_beyond_border(rng, x, y)] = index
    return regions, [STUFF[i] for i in rng.permutation(len(STUFF))[:count]]


def _ground_paint(rng: Generator, name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Paint the pattern of a ground class in two random colours, (H, W, 3)."""
    colours = _colour(rng), _colour(rng)
    while np.linalg.norm(colours[0] - colours[1]) < 70:
        colours = _colour(rng), _colour(rng)
    period = rng.uniform(7, 14)
    u, v = rotate(rng.uniform(0, 2 * math.pi), x / period, y / period)
    u, v = u + rng.random(), v + rng.random()
    if rng.random() < 0.5:
        u = u + 0.4 * np.sin(v * rng.uniform(0.3, 0.8))
    return mix(*colours, pattern(name, u, v))


def _light_and_noise(rng: Generator, image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Apply a gradient of brightness and noise of the pixels; (H, W, 3) uint8."""
    u, _ = rotate(rng.uniform(0, 2 * math.pi), x / x.max() - 0.5, y / y.max() - 0.5)
    lit = image * (1 + rng.uniform(0, 0.6) * u)[..., None]
    noisy = lit + rng.normal(0, rng.uniform(3, 14), image.shape)
    return np.clip(noisy, 0, 255).round().astype(np.uint8)


def _beyond_border(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """One side of a straight or wavy border through the middle part of the image."""
    height, width = x.shape
    size = min(height, width)
    centre = rng.uniform(0.3, 0.7, 2)
    u, v = rotate(
        rng.uniform(0, 2 * math.pi),
        x / size - centre[0] * width / size,
        y / size - centre[1] * height / size,
    )
    wave = rng.uniform(0.05, 0.16) * (rng.random() < 0.6)
    return u > wave * np.sin(v * rng.uniform(4, 10) + rng.uniform(0, 2 * math.pi))


def _add_unlabelled_patch(
    rng: Generator, image: np.ndarray, ids: np.ndarray, x: np.ndarray, y: np.ndarray
) -> None:
    """In about half of the images, a grey blob with two sets of thin lines."""
    if rng.random() < 0.5:
        return
    height, width = ids.shape
    dx, dy = x - rng.uniform(0, width), y - rng.uniform(0, height)
    angle = np.arctan2(dy, dx)
    radius = min(height, width) * rng.uniform(0.12, 0.3)
    for waves in (2, 3, 5):
        bump = np.sin(waves * angle + rng.uniform(0, 2 * math.pi))
        radius = radius * (1 + rng.uniform(0, 0.2) * bump)
    inside = np.hypot(dx, dy) < radius
    u, v = rotate(rng.uniform(0, 2 * math.pi), x / 6, y / 6)
    lines = ((u % 1 < 0.2) | (v % 1 < 0.2)).astype(np.float64)
    dark, bright = np.full(3, rng.uniform(60, 100)), np.full(3, rng.uniform(140, 190))
    image[inside] = mix(bright, dark, lines)[inside]
    ids[inside] = 0


def _add_objects(
    rng: Generator,
    image: np.ndarray,
    ids: np.ndarray,
    classes: dict[int, str],
    x: np.ndarray,
    y: np.ndarray,
) -> None:
    """Draw 1 to MAX_OBJECTS shapes (log-uniform), later ones over earlier ones."""
    count = round(MAX_OBJECTS ** rng.uniform(0, 1))
    full: dict[int, float] = {}  # area of each shape were it alone
    for _ in range(count):
        index = max(classes) + 1
        name, radius, u, v = _place(rng, count, x, y)
        inside = shape_mask(name, u, v)
        for _ in range(_ATTEMPTS):
            if _leaves_all_visible(inside, ids, full, math.pi * radius**2):
                break
            name, radius, u, v = _place(rng, count, x, y)
            inside = shape_mask(name, u, v)
        else:
            continue
        image[inside] = _object_paint(rng, image[inside], u[inside], v[inside])
        ids[inside] = index
        classes[index], full[index] = name, math.pi * radius**2


def _place(
    rng: Generator, count: int, x: np.ndarray, y: np.ndarray
) -> tuple[str, float, np.ndarray, np.ndarray]:
    """A class, a radius in pixels, and the coordinates of a shape of radius 1."""
    height, width = x.shape
    largest = min(_MAX_RADIUS, 0.55 / math.sqrt(count))
    radius = min(height, width) * math.exp(rng.uniform(math.log(_MIN_RADIUS), math.log(largest)))
    centre = rng.uniform(0.02, 0.98, 2) * (width, height)
    u, v = rotate(rng.uniform(0, 2 * math.pi), (x - centre[0]) / radius, (y - centre[1]) / radius)
    stretch = math.exp(rng.uniform(-0.14, 0.14))
    return THINGS[rng.integers(len(THINGS))], radius, u * stretch, v / stretch


def _leaves_all_visible(
    inside: np.ndarray, ids: np.ndarray, full: dict[int, float], area: float
) -> bool:
    """Whether the new shape and, under it, all earlier ones can still be recognised."""
    if inside.sum() < max(_MIN_VISIBLE * area, _MIN_PIXELS):
        return False
    counts = np.bincount(ids[~inside], minlength=max(full, default=0) + 1)
    return all(counts[i] >= max(_MIN_VISIBLE * a, _MIN_PIXELS) for i, a in full.items())


def _object_paint(rng: Generator, under: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Colours (P, 3) of a shape at coordinates (P,), told apart from those ``under`` it."""
    candidates = np.stack([_colour(rng) for _ in range(6)])
    sample = under[:: max(1, len(under) // 64)]
    distances = np.linalg.norm(candidates[:, None] - sample, axis=-1)
    main = candidates[np.quantile(distances, 0.25, axis=1).argmax()]
    other = np.clip(main + rng.uniform(-70, 70, 3), 20, 235)
    filling = rng.choice(("flat", "gradient", "speckle", *STUFF))
    if filling == "flat":
        share = np.zeros(len(u))
    elif filling == "gradient":
        share = u / 2 + 0.5
    elif filling == "speckle":
        share = rng.uniform(0, 1, len(u))
    else:
        scale = rng.uniform(0.8, 2.5)
        share = pattern(str(filling), u * scale, v * scale)
    return mix(main, other, share)


def _drop_tiny_segments(ids: np.ndarray, classes: dict[int, str]) -> None:
    counts = np.bincount(ids.ravel(), minlength=max(classes) + 1)
    for index in [index for index in classes if counts[index] < _MIN_PIXELS]:
        ids[ids == index] = 0
        del classes[index]


def _colour(rng: Generator) -> np.ndarray:
    return rng.uniform(25, 230, 3)
