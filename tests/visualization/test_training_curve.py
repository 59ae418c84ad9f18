import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mask_transformers.visualization.training_curve import plot_metrics, read_metrics, series

LINES = [
    {"iteration": 19, "total_loss": 8.0},
    {"iteration": 39, "total_loss": 4.0},
    {"iteration": 39, "panoptic_seg/PQ": 55.0, "val/sem_seg/mIoU": float("nan")},
]


def run_with(tmp_path, *lines):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (tmp_path / "metrics.json").write_text(text)
    return tmp_path


def test_lines_of_an_iteration_are_merged(tmp_path):
    metrics = read_metrics(run_with(tmp_path, *LINES))
    assert [m["iteration"] for m in metrics] == [19, 39]
    assert series(metrics, "total_loss") == {"total_loss": ([19, 39], [8.0, 4.0])}
    assert series(metrics, "panoptic_seg/PQ") == {"panoptic_seg/PQ": ([39], [55.0])}
    assert list(series(metrics, "sem_seg/mIoU")) == ["val/sem_seg/mIoU"]


def test_the_picture_is_drawn(tmp_path):
    plot_metrics(run_with(tmp_path, *LINES), tmp_path / "a" / "curve.png")
    picture = np.asarray(Image.open(tmp_path / "a" / "curve.png").convert("RGB"))
    assert picture.std() > 5
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["curve.png"], "no temporary file"


def test_scores_have_different_names(tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda f, p: drawn.append(f) or save(f, p))
    scores = {"segm/AP": 20.0, "bbox/AP": 30.0, "val/bbox/AP": 40.0}
    plot_metrics(run_with(tmp_path, {"iteration": 9, **scores}), tmp_path / "curve.png")
    (scale,) = [axes for axes in drawn[0].axes if "score" in axes.get_ylabel()]
    assert [line.get_label() for line in scale.lines] == [
        "mask AP, at last 20.0",
        "box AP, at last 30.0",
        "box AP (val), at last 40.0",
    ]


def test_an_interrupted_last_line_is_left_out(tmp_path):
    assert len(read_metrics(run_with(tmp_path, *LINES, '{"iteration": 59, "tot'))) == 2


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="OUTPUT_DIR"):
        read_metrics(tmp_path)
    with pytest.raises(ValueError, match="holds no metrics"):
        read_metrics(run_with(tmp_path, ""))
    with pytest.raises(ValueError, match="line 1"):
        read_metrics(run_with(tmp_path, "nonsense", *LINES))
