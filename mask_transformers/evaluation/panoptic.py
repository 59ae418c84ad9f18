"""Panoptic quality (Kirillov et al., CVPR 2019), per class and for things and stuff."""

import contextlib
import io
import json
import logging
import math
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from detectron2.evaluation import COCOPanopticEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from panopticapi.evaluation import PQStat, pq_compute_single_core
from tabulate import tabulate  # type: ignore[import-untyped]

from ..output_files import write_atomically

logger = logging.getLogger(__name__)

_IMAGES_PER_PROCESS = 128  # below that, starting a process costs more than it saves
_GROUPS = {"": None, "_th": True, "_st": False}  # suffix of the metric → isthing

Counts = dict[str, float]  # PQ, SQ, RQ in percent


class PanopticEvaluator(COCOPanopticEvaluator):
    """Detectron2's evaluator with a result per class.

    Results: ``PQ``, ``SQ``, ``RQ`` in percent, with ``_th`` and ``_st`` those of things and stuff,
    with ``-<class>`` those of one class. What has no ground truth and no prediction is NaN and
    enters no mean. Annotations are read from the data set's ``panoptic_json``.
    """

    def _convert_category_id(self, segment_info: dict) -> dict:
        """The segment with the category id of the data set; the model's own stays as it is."""
        of_things = bool(segment_info["isthing"])
        table = (
            self._thing_contiguous_id_to_dataset_id
            if of_things
            else self._stuff_contiguous_id_to_dataset_id
        )
        category = int(segment_info["category_id"])
        if category not in table:
            raise ValueError(
                f"the model predicts {'thing' if of_things else 'stuff'} class {category}, which "
                f"data set {self._metadata.name!r} has not: {sorted(table)}"
            )
        return {"id": int(segment_info["id"]), "category_id": table[category]}

    def evaluate(self) -> dict | None:
        """``{"panoptic_seg": {metric: value}}`` in the main process, None elsewhere."""
        comm.synchronize()
        gathered = comm.gather(self._predictions)
        if not comm.is_main_process():
            return None
        predictions = [prediction for part in gathered for prediction in part]
        truth = json.loads(
            Path(PathManager.get_local_path(self._metadata.panoptic_json)).read_text()
        )
        with tempfile.TemporaryDirectory(prefix="panoptic_") as folder:
            _write_pngs(predictions, Path(folder))
            self._write_predictions(truth, predictions)
            statistics = self._statistics(truth, predictions, folder)
        results = summarise(statistics, truth["categories"])
        logger.info("Panoptic quality:\n" + _table(statistics, truth["categories"], results))
        return {"panoptic_seg": results}

    def _statistics(self, truth: dict, predictions: list[dict], folder: str) -> PQStat:
        by_image = {prediction["image_id"]: prediction for prediction in predictions}
        missing = [a["image_id"] for a in truth["annotations"] if a["image_id"] not in by_image]
        if missing:
            raise ValueError(
                f"{len(missing)} images of {self._metadata.panoptic_json} have no prediction, "
                f"among them image {missing[0]}"
            )
        pairs = [
            (annotation, by_image[annotation["image_id"]]) for annotation in truth["annotations"]
        ]
        categories = {category["id"]: category for category in truth["categories"]}
        truth_folder = PathManager.get_local_path(self._metadata.panoptic_root)
        return _count_in_processes(pairs, truth_folder, folder, categories)

    def _write_predictions(self, truth: dict, predictions: list[dict]) -> None:
        """Predictions in COCO's format, but for the PNGs."""
        if self._output_dir:
            text = json.dumps({**truth, "annotations": predictions})
            path = Path(self._output_dir) / "predictions.json"
            write_atomically(path, lambda file: file.write_text(text))


def _write_pngs(predictions: Sequence[dict], folder: Path) -> None:
    """Write the PNGs; names that images of different folders share are made unique."""
    taken: set[str] = set()
    for i, prediction in enumerate(predictions):
        if prediction["file_name"] in taken:
            prediction["file_name"] = f"{i}_{prediction['file_name']}"
        taken.add(prediction["file_name"])
        (folder / prediction["file_name"]).write_bytes(prediction.pop("png_string"))


def _count_in_processes(pairs: list, truth_folder: str, folder: str, categories: dict) -> PQStat:
    workers = min(os.cpu_count() or 1, math.ceil(len(pairs) / _IMAGES_PER_PROCESS))
    if workers <= 1:
        return _count((0, pairs, truth_folder, folder, categories))
    parts = [(i, pairs[i::workers], truth_folder, folder, categories) for i in range(workers)]
    total = PQStat()
    with multiprocessing.Pool(workers) as pool:
        for part in pool.map(_count, parts, chunksize=1):
            total += part
    return total


def _count(arguments: tuple) -> PQStat:
    with contextlib.redirect_stdout(io.StringIO()):
        return pq_compute_single_core(*arguments)


def summarise(statistics: PQStat, categories: Sequence[dict]) -> Counts:
    """Percentages over all classes, things, stuff, and per class; NaN where nothing was seen."""
    by_class = {c["id"]: _quality(statistics[c["id"]]) for c in categories}
    results: Counts = {}
    for suffix, isthing in _GROUPS.items():
        chosen = [
            by_class[c["id"]]
            for c in categories
            if isthing is None or bool(c["isthing"]) == isthing
        ]
        seen = [quality for quality in chosen if not math.isnan(quality["PQ"])]
        for metric in ("PQ", "SQ", "RQ"):
            mean = sum(q[metric] for q in seen) / len(seen) if seen else math.nan
            results[metric + suffix] = mean
    for category in categories:
        for metric, value in by_class[category["id"]].items():
            results[f"{metric}-{category['name']}"] = value
    return results


def _quality(count) -> Counts:
    """PQ = SQ · RQ of one class, from true and false positives and false negatives."""
    total = count.tp + 0.5 * count.fp + 0.5 * count.fn
    if total == 0:
        return {"PQ": math.nan, "SQ": math.nan, "RQ": math.nan}
    segmentation = float(count.iou) / count.tp if count.tp else 0.0
    recognition = count.tp / total
    return {
        "PQ": 100 * segmentation * recognition,
        "SQ": 100 * segmentation,
        "RQ": 100 * recognition,
    }


def _table(statistics: PQStat, categories: Sequence[dict], results: Counts) -> str:
    metrics = ("PQ", "SQ", "RQ")
    names = {"all": "", "things": "_th", "stuff": "_st"}
    rows = [[name, "", *(results[m + suffix] for m in metrics)] for name, suffix in names.items()]
    for category in categories:
        count = statistics[category["id"]]
        kind = "thing" if category["isthing"] else "stuff"
        values = [results[f"{metric}-{category['name']}"] for metric in metrics]
        rows.append([category["name"], kind, *values, count.tp, count.fp, count.fn])
    headers = ["class", "kind", *metrics, "TP", "FP", "FN"]
    return tabulate(rows, headers=headers, tablefmt="pipe", floatfmt=".2f")
