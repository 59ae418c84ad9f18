"""Reading semantic label files for Detectron2's ``SemSegEvaluator``."""

import numpy as np

from ..data.image_file import read_image_file


def label_reader(num_classes: int, ignore_label: int):
    """A loading function: label file → class ids (H, W) in [0, K) or ``ignore_label``.

    The function raises ValueError naming a file with colours or an unknown class id.
    """

    def read(path: str, dtype=int) -> np.ndarray:
        labels = read_image_file(path, None, "label")
        if labels.ndim != 2:
            raise ValueError(f"label file {path} must have one channel of class ids, not colours")
        labels = labels.astype(dtype)
        known = (labels >= 0) & (labels < num_classes) | (labels == ignore_label)
        if not known.all():
            raise ValueError(
                f"label file {path} has class id {labels[~known][0]}; known are 0 to "
                f"{num_classes - 1} and {ignore_label} (ignored)"
            )
        return labels

    return read
