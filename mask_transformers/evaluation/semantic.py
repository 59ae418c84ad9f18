"""Mean intersection over union: Detectron2's evaluator with a table, and its label files."""

import logging
from collections.abc import Sequence

import numpy as np
from detectron2.evaluation import SemSegEvaluator
from tabulate import tabulate  # type: ignore[import-untyped]

from ..data.image_file import read_image_file

logger = logging.getLogger(__name__)


class SemanticEvaluator(SemSegEvaluator):
    """Detectron2's ``SemSegEvaluator`` that leaves out images without labels and logs a table."""

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Count the pixels of ``sem_seg`` (K, H, W) in the outputs."""
        pairs = zip(inputs, outputs, strict=True)
        known = [pair for pair in pairs if pair[0]["file_name"] in self.input_file_to_gt_file]
        super().process([record for record, _ in known], [output for _, output in known])

    def evaluate(self) -> dict | None:
        """``{"sem_seg": {metric: value}}`` in percent in the main process, None elsewhere."""
        self._logger = logging.getLogger(f"{__name__}.dictionary")
        self._logger.disabled = True
        results = super().evaluate()
        if results is None:
            return None
        scores = {key: float(value) for key, value in results["sem_seg"].items()}
        rows = [["all", scores["mIoU"], scores["mACC"]]]
        rows += [[name, scores[f"IoU-{name}"], scores[f"ACC-{name}"]] for name in self._class_names]
        table = tabulate(rows, ["class", "IoU", "ACC"], tablefmt="pipe", floatfmt=".2f")
        logger.info(f"Semantic segmentation (pixel accuracy {scores['pACC']:.2f}):\n{table}")
        return {"sem_seg": scores}


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
