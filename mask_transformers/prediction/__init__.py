"""Prediction on files, around Detectron2's DefaultPredictor."""

from .grid import prediction_grid
from .inputs import find_inputs, overlay_paths
from .predict import build_predictor, predict_and_draw
from .video import draw_video

__all__ = [
    "build_predictor",
    "draw_video",
    "find_inputs",
    "overlay_paths",
    "predict_and_draw",
    "prediction_grid",
]
