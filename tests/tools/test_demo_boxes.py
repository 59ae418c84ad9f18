"""Detectors without masks, and the boxes of systems that have them, through tools/demo.py."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from mask_transformers.engine.setup import build_config

CHECKOUT = Path(__file__).resolve().parents[2]
SIZE = (70, 50)  # width, height
CATEGORIES = [{"id": 4, "name": "disc"}, {"id": 9, "name": "box"}]


@pytest.fixture(scope="module")
def demo(load_tool):
    return load_tool("demo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two grey images, each with one box, and no masks."""
    root = tmp_path_factory.mktemp("boxes")
    (root / "val").mkdir()
    sizes = {"width": SIZE[0], "height": SIZE[1]}
    images = [{"id": i, "file_name": f"{i}.png", **sizes} for i in (1, 2)]
    for image in images:
        Image.new("RGB", SIZE, (90, 90, 90)).save(root / "val" / image["file_name"])
    box = {"category_id": 9, "bbox": [10, 10, 40, 30], "area": 1200, "iscrowd": 0}
    annotations = [{"id": i, "image_id": i, **box} for i in (1, 2)]
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (root / "instances_val.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def detector(load_tool, folder, tmp_path_factory, miniature_options):
    """--config-file and --weights of a miniature DETR without a mask head, which finds objects."""
    config = CHECKOUT / "configs/detr/detr_small_custom_box.yaml"
    cfg = build_config(str(config), miniature_options, data=str(folder), data_task="box")
    run = tmp_path_factory.mktemp("run")
    (run / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    state = build_model(cfg).state_dict()
    state["class_embed.bias"][-1] = -10.0  # never no-object
    torch.save({"model": state}, run / "model.pth")
    return ["--config-file", str(run / "config.yaml"), "--weights", str(run / "model.pth")]


@pytest.mark.parametrize("task", [[], ["--task", "box"]])
def test_boxes_are_drawn_and_written(demo, detector, folder, tmp_path, capsys, task):
    out = tmp_path / "out"
    arguments = ["--input", str(folder / "val" / "1.png"), "--output", str(out), "--save-raw"]
    assert demo.main([*detector, *arguments, *task]) == 0
    assert "7 boxes, " in capsys.readouterr().out
    assert (np.asarray(Image.open(out / "1.png")) != 90).any()
    assert [path.name for path in (out / "raw").iterdir()] == ["instances.json"]
    found = json.loads((out / "raw" / "instances.json").read_text())
    assert len(found) == 7
    for entry in found:
        assert set(entry) == {"image_id", "category_id", "score", "bbox"}
        assert entry["image_id"] == 1
        assert entry["category_id"] in (4, 9)
        x, y, width, height = entry["bbox"]
        assert 0 <= x <= x + width <= SIZE[0] + 1e-3
        assert 0 <= y <= y + height <= SIZE[1] + 1e-3
    assert demo.main([*detector, *arguments, *task]) == 1
    assert "exists already" in capsys.readouterr().err


def test_masks_of_a_detector_without_them_are_refused(demo, detector, folder, tmp_path, capsys):
    arguments = ["--input", str(folder / "val"), "--output", str(tmp_path), "--task", "instance"]
    assert demo.main([*detector, *arguments]) == 1
    assert "TEST.TASKS" in capsys.readouterr().err


def columns(path):
    """Image, ground truth and prediction of a grid of one image."""
    picture = np.asarray(Image.open(path).convert("RGB"))[30:-6, 6:]
    step = picture.shape[1] // 3
    return [picture[:, k * step : (k + 1) * step - 6] for k in range(3)]


def assert_frame(truth):
    """The box of the annotation as a line with nothing inside."""
    changed = (truth != 90).any(-1)
    factor = truth.shape[0] // SIZE[1]
    assert changed[20 * factor, 10 * factor - 3 : 10 * factor + 3].any()
    assert not changed[25 * factor : 38 * factor, 12 * factor : 48 * factor].any()


@pytest.mark.parametrize("task", [[], ["--task", "box"]])
def test_a_grid_of_boxes(demo, detector, tmp_path, task):
    path = tmp_path / "grid.png"
    assert demo.main([*detector, "--grid", str(path), "--count", "1", *task]) == 0
    image, truth, prediction = columns(path)
    assert (image == 90).all()
    assert_frame(truth)
    assert (prediction != 90).any()


@pytest.mark.parametrize("task", [[], ["--task", "instance"], ["--task", "box"]])
def test_masks_beside_annotations_that_have_none(demo, trained, folder, tmp_path, task):
    """The miniature Mask2Former, of other classes, on data with boxes only."""
    name = f"{folder.name}_box_val"
    path = tmp_path / "grid.png"
    arguments = ["--config-file", str(trained / "config.yaml")]
    arguments += ["--weights", str(trained / "model.pth"), "--dataset", name, "--count", "1"]
    arguments += ["--opts", "MODEL.MASK_TRANSFORMER.TEST.TASKS", '["instance", "box"]']
    assert demo.main([*arguments, "--grid", str(path), *task]) == 0
    assert_frame(columns(path)[1])


def test_boxes_of_a_system_with_masks(demo, trained, folder, tmp_path, capsys):
    arguments = ["--config-file", str(trained / "config.yaml"), "--score-threshold", "0"]
    arguments += ["--weights", str(trained / "model.pth"), "--input", str(folder / "val" / "1.png")]
    assert demo.main([*arguments, "--output", str(tmp_path), "--task", "box", "--save-raw"]) == 0
    assert " boxes, " in capsys.readouterr().out
    found = json.loads((tmp_path / "raw" / "instances.json").read_text())
    assert found
    assert all("segmentation" in entry for entry in found)
