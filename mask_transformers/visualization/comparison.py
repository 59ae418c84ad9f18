"""Several trainings side by side: a table of their last scores, and their curves."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..output_files import write_atomically
from .training_curve import SCORES, read_metrics, series

# What tables have besides, next to the score that it is a part of.
PARTS = {"panoptic_seg/PQ_th": "PQ things", "panoptic_seg/PQ_st": "PQ stuff"}
COLUMNS = {"panoptic_seg/PQ": SCORES["panoptic_seg/PQ"], **PARTS, **SCORES}
NOTHING = "–"


def comparison_table(
    runs: Mapping[str, Path], costs: Mapping[str, Mapping[str, str]] | None = None
) -> str:
    """Markdown table of the last scores, one row a run; ``runs``: label → OUTPUT_DIR.

    ``costs``: label → heading → cell, of further columns before the scores. Errors as in
    ``read_metrics``.
    """
    rows = {label: _last_scores(read_metrics(folder)) for label, folder in runs.items()}
    names = [score for score in COLUMNS if any(score in row for row in rows.values())]
    costs = costs or {}
    headings = list(dict.fromkeys(heading for cells in costs.values() for heading in cells))
    lines = []
    for label, row in rows.items():
        cost = [costs.get(label, {}).get(heading, NOTHING) for heading in headings]
        scores = [f"{row[name]:.1f}" if name in row else NOTHING for name in names]
        lines.append([label, *cost, f"{row['iterations']:,}", *scores])
    return markdown_table(["system", *headings, "iterations", *(COLUMNS[n] for n in names)], lines)


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with one cell for each of the ``headings`` in every row."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def plot_comparison(runs: Mapping[str, Path], path: Path, minutes: float) -> None:
    """Write a picture of the runs over their ``minutes`` of training, one diagram a score."""
    metrics = {label: read_metrics(folder) for label, folder in runs.items()}
    scores = [score for score in SCORES if any(series(m, score) for m in metrics.values())]
    figure = Figure(figsize=(max(8, 5 * len(scores)), 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for index, score in enumerate(scores, start=1):
        _plot_score(figure.add_subplot(1, len(scores), index), metrics, score, minutes)
    write_atomically(path, lambda file: figure.savefig(file))


def _plot_score(axes: Axes, runs: Mapping[str, list[dict]], score: str, minutes: float) -> None:
    """Draw ``score`` of every run that has it, on the first data set where there are several."""
    for number, (label, metrics) in enumerate(runs.items()):
        last = metrics[-1]["iteration"] + 1
        for iterations, values in list(series(metrics, score).values())[:1]:
            times = [minutes * (iteration + 1) / last for iteration in iterations]
            text = f"{label}, {values[-1]:.1f}"
            # A run has the same colour in every diagram.
            axes.plot(times, values, f"C{number}", marker="o", markersize=4, label=text)
    axes.set_xlabel("minutes of training")
    axes.set_ylabel(f"{SCORES[score]} on the evaluation set, %")
    axes.set_ylim(0, 100)
    axes.legend(fontsize=8)


def _scores(metrics: list[dict]) -> list[tuple[str, tuple[list[int], list[float]]]]:
    """Name, iterations and values of the scores, in the order of ``COLUMNS``."""
    return [pair for suffix in COLUMNS for pair in series(metrics, suffix).items()]


def _last_scores(metrics: list[dict]) -> dict:
    row = {"/".join(name.split("/")[-2:]): values[-1] for name, (_, values) in _scores(metrics)}
    return {"iterations": metrics[-1]["iteration"] + 1, **row}
