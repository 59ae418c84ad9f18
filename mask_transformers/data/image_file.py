"""Reading image files with errors that name the file."""

import numpy as np
from detectron2.data import detection_utils

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


def read_image_file(path: str, image_format: str | None, role: str = "image") -> np.ndarray:
    """Read ``path`` as an (H, W, C) or (H, W) array, turned upright as its EXIF data asks.

    Args:
        path: file to read.
        image_format: "RGB", "BGR", …; None keeps the numbers of the file, so that a palette image
            gives its indices.
        role: what the file is, for the messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be decoded.
    """
    try:
        return detection_utils.read_image(path, format=image_format)
    except FileNotFoundError:
        raise FileNotFoundError(f"{role} file {path} does not exist") from None
    except Exception as error:  # Pillow raises a dozen unrelated types for broken files
        raise ValueError(f"{role} file {path} cannot be read: {error}") from error


def check_same_size(image: str, size: tuple[int, int], label: str, shape: tuple[int, ...]) -> None:
    """ValueError names both files unless image ``size`` (H, W) is that of its label."""
    if tuple(shape[:2]) != tuple(size):
        raise ValueError(
            f"size mismatch: image {image} is {size[1]}x{size[0]} (width x height), "
            f"but its label {label} is {shape[1]}x{shape[0]}"
        )
