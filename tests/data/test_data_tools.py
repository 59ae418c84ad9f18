"""The scripts that prepare and inspect data."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


inspect_data = load(ROOT / "tools" / "inspect_data.py")


def run(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    return module.main()


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic", "box"])
def test_inspection(tmp_path, data, monkeypatch, capsys, task):
    root = data.write_folder(tmp_path / "own", task)
    assert run(inspect_data, monkeypatch, root, "--check", "--task", task) == 0
    output = capsys.readouterr().out
    assert f"own_{task}_train\n  images: 2" in output
    assert "box: " in output
    assert "32x24 smallest" in output
    assert f"own_{task}_val: all 2 images" in output
    assert output.endswith("Recommended: MODEL.MASK_TRANSFORMER.QUERIES 50\n")


def test_inspection_reports_errors(tmp_path, data, monkeypatch, capsys):
    assert run(inspect_data, monkeypatch, tmp_path) == 1
    assert "known layouts" in capsys.readouterr().err
    root = data.write_folder(tmp_path / "own", "semantic")
    data.save(root / "labels_val" / "a.png", np.full(data.size, 9, np.uint8))
    assert run(inspect_data, monkeypatch, root) == 1
    assert "[9]" in capsys.readouterr().err
    root = data.write_folder(tmp_path / "pan", "panoptic")
    data.save(root / "panoptic_val" / "a.png", np.zeros((*data.size, 3), np.uint8))
    assert run(inspect_data, monkeypatch, root) == 0
    assert run(inspect_data, monkeypatch, root, "--check") == 1
    assert "no pixel of the listed segments" in capsys.readouterr().err


def test_inspection_compares_areas(tmp_path, data, monkeypatch, capsys):
    root = data.write_folder(tmp_path / "own", "panoptic")
    content = data.panoptic_json()
    content["annotations"][0]["segments_info"][1]["area"] = 62
    data.write_json(root / "panoptic_val.json", content)
    assert run(inspect_data, monkeypatch, root, "--check") == 1
    assert "segment 300 has 63 pixels, but the json says area 62" in capsys.readouterr().err
