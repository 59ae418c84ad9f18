"""Many images in one picture."""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Panel = tuple[np.ndarray, str]  # an image and its title

# Of titled_rows: width of panels, between them, and height of titles, in inches.
PANEL, GAP, TITLE, DPI = 2.0, 0.08, 0.25, 150


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
        cv2.putText(
            canvas, title, (x, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA
        )
    return canvas


def titled_rows(rows: Sequence[Sequence[Panel]]) -> np.ndarray:
    """One picture of rows of equal length, with every image scaled to the same width.

    Titles stand above the panels, but where the panel above has the same.
    """
    if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
        raise ValueError("titled_rows needs at least one row and rows of equal length")
    above = [[""] * len(rows[0]), *([title for _, title in row] for row in rows)]
    gaps = [TITLE if old != new else GAP for old, new in pairwise(above)]
    heights = [PANEL * max(image.shape[0] / image.shape[1] for image, _ in row) for row in rows]
    width, height = len(rows[0]) * (PANEL + GAP) + GAP, sum(heights) + sum(gaps) + GAP
    figure = Figure(figsize=(width, height), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    bottom = height
    for row, row_height, gap, titles in zip(rows, heights, gaps, above, strict=False):
        bottom -= gap + row_height
        for column, (image, title) in enumerate(row):
            left = GAP + column * (PANEL + GAP)
            place = left / width, bottom / height, PANEL / width, row_height / height
            axes = figure.add_axes(place)
            axes.imshow(image)
            axes.set_axis_off()
            if title != titles[column]:
                axes.set_title(title, fontsize=9, pad=4)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
