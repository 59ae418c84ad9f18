"""A picture of images of a data set with ground truth beside prediction."""

from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor

from ..data.image_file import read_image_file
from ..output_files import write_image
from ..visualization.overlay import enlarge
from ..visualization.results import (
    draw_ground_truth,
    draw_prediction,
    tasks_of_output,
    tasks_of_record,
)
from ..visualization.side_by_side import side_by_side
from .predict import build_predictor


def prediction_grid(
    cfg: CfgNode,
    weights: str,
    dataset_name: str,
    count: int,
    path: Path,
    task: str = "auto",
    score_threshold: float = 0.5,
) -> None:
    """Write a picture of ``count`` images spread over a data set: image, ground truth, prediction.

    ``task`` "auto" is the first of panoptic, instance, box and semantic that the data set holds and
    the model predicts. ValueError: unknown data set, or one without images.
    """
    if dataset_name not in DatasetCatalog:
        known = ", ".join([*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]) or "none"
        raise ValueError(f"data set {dataset_name!r} is not registered; the config has {known}")
    records = DatasetCatalog.get(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    if not records or count < 1:
        raise ValueError(f"a grid of {count} of the {len(records)} images of {dataset_name}")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = weights
    predictor = build_predictor(cfg)
    chosen = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
    rows = [
        _grid_row(predictor, records[index], metadata, task, score_threshold) for index in chosen
    ]
    write_image(_arrange(rows), path)


def _arrange(rows: list[list[np.ndarray]]) -> np.ndarray:
    """One picture; more than four images stand in two columns."""
    titles = ["image", "ground truth", "prediction"]
    if len(rows) <= 4:
        return side_by_side(rows, titles)
    blank = [np.full((1, 1, 3), 255, np.uint8)] * len(titles)
    rows = rows + [blank] * (len(rows) % 2)
    return side_by_side([a + b for a, b in zip(rows[::2], rows[1::2], strict=True)], titles * 2)


def _grid_row(
    predictor: DefaultPredictor, record: dict, metadata, task: str, score_threshold: float
) -> list[np.ndarray]:
    image = read_image_file(record["file_name"], "BGR")
    output = predictor(image)
    rgb = np.ascontiguousarray(image[:, :, ::-1])
    held = tasks_of_record(record)
    if task == "auto":
        task = next((t for t in tasks_of_output(output) if t in held), task)
    overlay = draw_prediction(rgb, output, metadata, task, score_threshold)
    # A panoptic data set is a ground truth for every task, and boxes stand for absent masks.
    truth = draw_ground_truth(record, metadata, task if task in held else "auto", rgb)
    factor = truth.shape[0] // rgb.shape[0]
    return [enlarge(rgb, factor), truth, overlay]
