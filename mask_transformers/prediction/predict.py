"""One image through Detectron2's predictor, with its overlay."""

import time
from collections.abc import Callable

import numpy as np
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor
from detectron2.utils.file_io import PathManager

from ..backbones.initial_weights import without_initial_weights
from ..checkpoint import MaskTransformerCheckpointer
from ..visualization.results import OUTPUT_KEYS, draw_prediction, tasks_of_output

UNITS = {"semantic": "classes", "box": "boxes"}


def build_predictor(cfg: CfgNode) -> DefaultPredictor:
    """Detectron2's DefaultPredictor; the weights are looked at before the model is built.

    They are read as in training, those of TensorFlow too. ValueError: MODEL.WEIGHTS names none, or
    only those of a backbone, or a file that is not of this model. FileNotFoundError: no file.
    """
    weights = cfg.MODEL.WEIGHTS
    if not weights or "ImageNetPretrained" in weights:
        what = "empty" if not weights else f"{weights!r}, which is only a backbone"
        raise ValueError(f"MODEL.WEIGHTS is {what}; prediction needs the weights of a model")
    if "://" not in weights and not PathManager.isfile(weights):
        raise FileNotFoundError(f"MODEL.WEIGHTS: there is no file {weights}")
    empty = without_initial_weights(cfg)
    empty.defrost()
    empty.MODEL.WEIGHTS = ""  # which Detectron2 would read itself, and not all of our formats
    predictor = DefaultPredictor(empty)
    MaskTransformerCheckpointer(predictor.model).load(weights)
    predictor.cfg.MODEL.WEIGHTS = weights
    return predictor


def count_segments(output: dict, task: str, score_threshold: float) -> int:
    """Number of segments, of instances above the threshold, or of classes seen."""
    result = output[OUTPUT_KEYS[task]]
    if task == "panoptic":
        return len(result[1])
    if task in ("instance", "box"):
        return int((result.scores >= score_threshold).sum())
    return len(result.argmax(0).unique())


def predict_and_draw(
    predictor: Callable[[np.ndarray], dict],
    image: np.ndarray,
    metadata,
    task: str = "auto",
    score_threshold: float = 0.5,
) -> tuple[np.ndarray, dict, str]:
    """Overlay (RGB), output of the model, and one line on it, for a BGR ``image`` (H, W, 3)."""
    start = time.perf_counter()
    output = predictor(image)
    seconds = time.perf_counter() - start
    if task == "auto":
        task = next(iter(tasks_of_output(output)), task)
    rgb = np.ascontiguousarray(image[:, :, ::-1])
    overlay = draw_prediction(rgb, output, metadata, task, score_threshold)
    count = count_segments(output, task, score_threshold)
    return overlay, output, f"{count} {UNITS.get(task, 'segments')}, {seconds:.2f} s"
