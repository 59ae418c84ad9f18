"""Many images in one picture."""

from collections.abc import Sequence

import cv2
import numpy as np


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
