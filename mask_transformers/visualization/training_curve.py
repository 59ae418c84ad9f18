"""The course of a training, from the ``metrics.json`` that Detectron2 writes into OUTPUT_DIR."""

import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..output_files import write_atomically

LOSS = "total_loss"
# The main score of each task, as a suffix (several data sets put their names before it), and what
# it is called in tables and pictures.
SCORES = {
    "panoptic_seg/PQ": "PQ",
    "segm/AP": "mask AP",
    "bbox/AP": "box AP",
    "sem_seg/mIoU": "mIoU",
}


def read_metrics(run: Path) -> list[dict]:
    """The lines of ``metrics.json`` in the folder ``run``, merged by iteration, in order.

    A line cut off at the end of the file is left out. FileNotFoundError: no such file. ValueError:
    another line is not JSON, or there is none.
    """
    path = run / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; is {run} the OUTPUT_DIR of a training?")
    lines = path.read_text(encoding="utf-8").splitlines()
    merged: dict[int, dict] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            merged.setdefault(record["iteration"], {}).update(record)
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: no metrics of an iteration") from error
    if not merged:
        raise ValueError(f"{path} holds no metrics")
    return [merged[iteration] for iteration in sorted(merged)]


def series(metrics: list[dict], suffix: str) -> dict[str, tuple[list[int], list[float]]]:
    """Name → iterations and values, of the metrics whose name ends in ``suffix``."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for record in metrics:
        for name, value in record.items():
            if name == suffix or name.endswith("/" + suffix):
                iterations, values = found.setdefault(name, ([], []))
                iterations.append(record["iteration"])
                values.append(float(value))
    return found


def plot_metrics(run: Path, path: Path) -> None:
    """Write a picture of total loss and evaluation scores over the iterations of ``run``.

    Errors as in read_metrics.
    """
    metrics = read_metrics(run)
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    losses = figure.add_subplot()
    for iterations, values in series(metrics, LOSS).values():
        losses.plot(iterations, values, color="tab:gray", linewidth=1.2, label="total loss")
    losses.set_xlabel("iteration")
    losses.set_ylabel("total loss")
    losses.set_ylim(bottom=0)
    scores = losses.twinx()
    for suffix in SCORES:
        for name, (iterations, values) in series(metrics, suffix).items():
            label = f"{_label(name)}, at last {values[-1]:.1f}"
            scores.plot(iterations, values, marker="o", markersize=4, label=label)
    scores.set_ylim(0, 100)
    scores.set_ylabel("score on the evaluation set, %")
    handles = [*losses.get_lines(), *scores.get_lines()]
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=8)
    write_atomically(path, lambda file: figure.savefig(file))


def _label(name: str) -> str:
    *dataset, task, score = name.split("/")
    return SCORES[f"{task}/{score}"] + (f" ({'/'.join(dataset)})" if dataset else "")
