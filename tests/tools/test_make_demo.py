import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mask_transformers.data.datasets.shapes_files import VERSION, write_shapes

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path, miniature_options):
    """Function from further options to the finished process; writes to tmp_path / "demo"."""
    for split in ("train", "val"):
        root = tmp_path / "data" / "shapes_panoptic" / f"v{VERSION}"
        write_shapes(root, split, count=4, side_range=(64, 80))
    small = ["SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0", "SOLVER.MAX_ITER", "3"]
    small += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "MODEL.MASK_TRANSFORMER.LOSS.POINTS", "64"]
    command = [sys.executable, str(CHECKOUT / "tools/make_demo.py"), "--output"]
    environment = {**os.environ, "DETECTRON2_DATASETS": str(tmp_path / "data")}

    def call(*options):
        arguments = [*command, str(tmp_path / "demo"), *miniature_options, *small, *options]
        return subprocess.run(
            arguments, capture_output=True, text=True, env=environment, cwd=tmp_path
        )

    return call


def test_the_whole_demonstration(run, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "metrics.json").write_text("of an earlier run")
    result = run()
    assert result.returncode == 0, result.stderr[-3000:]
    names = {p.name for p in (tmp_path / "demo").iterdir()}
    assert names == {"metrics.json", "curve.png", "predictions.png", "train"}
    assert (tmp_path / "demo" / "train" / "model_final.pth").is_file()
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert metrics["iterations"] == 3
    for name in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st", "mIoU"):
        assert 0 <= metrics[name] <= 100
    assert set(metrics["per_class"]) >= {"circle", "stripes"}
    assert metrics["parameters"] > 1000
    assert "make_demo.py" in metrics["command"]
    last = result.stdout.strip().splitlines()[-1]
    assert last.startswith(f"PQ {metrics['PQ']:.1f}, ")
    assert str(tmp_path / "demo" / "predictions.png") in last
    assert (tmp_path / "demo.1" / "metrics.json").read_text() == "of an earlier run"


def test_a_wrong_option_is_named_before_anything_is_moved(load_tool, tmp_path, capsys):
    (tmp_path / "demo").mkdir()
    assert load_tool("make_demo").main(["--output", str(tmp_path / "demo"), "A.KEY", "1"]) == 1
    assert "A.KEY" in capsys.readouterr().err
    assert not (tmp_path / "demo.1").exists()


def test_the_summary_leaves_out_what_was_not_evaluated(load_tool):
    make_demo = load_tool("make_demo")
    results = {"panoptic_seg": {"PQ": 50.0, "PQ-cat": 40.0, "SQ-cat": 80.0, "RQ-cat": 50.0}}
    scores = make_demo.summary(results, ["cat", "dog"])
    assert scores["PQ"] == 50
    assert scores["per_class"] == {"cat": {"PQ": 40.0, "SQ": 80.0, "RQ": 50.0}}
    assert scores["AP"] is None
    line = make_demo.final_line({**scores, "training_minutes": 1, "iterations": 9}, Path("demo"))
    assert line.startswith("PQ 50.0 after 1 minutes, 9 iterations.")


def test_box_ap_is_told_from_mask_ap(load_tool):
    make_demo = load_tool("make_demo")
    scores = make_demo.summary({"segm": {"AP": 20.0}, "bbox": {"AP": 30.0}}, [])
    assert (scores["AP"], scores["box_AP"]) == (20.0, 30.0)
    line = make_demo.final_line({**scores, "training_minutes": 1, "iterations": 9}, Path("demo"))
    assert line.startswith("AP 20.0, box AP 30.0 after")


def test_minutes_must_be_positive(load_tool):
    with pytest.raises(SystemExit):
        load_tool("make_demo").parse_arguments(["--minutes", "0"])
