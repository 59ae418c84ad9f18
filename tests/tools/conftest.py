"""What tests of the tools share: a miniature model with random weights, command lines."""

import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from mask_transformers.engine.setup import build_config

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SMALL_CONFIG = TOOLS.parent / "configs/mask2former/mask2former_small_shapes_panoptic.yaml"
MINIATURE = {
    "MODEL.DEVICE": "cpu",
    "MODEL.TIMM.NAME": "test_efficientnet",
    "MODEL.TIMM.WEIGHTS": "",
    "MODEL.MASK_TRANSFORMER.HIDDEN_DIM": 32,
    "MODEL.MASK_TRANSFORMER.MASK_DIM": 16,
    "MODEL.MASK_TRANSFORMER.QUERIES": 7,
    "MODEL.MASK_TRANSFORMER.PIXEL_DECODER.LAYERS": 1,
    "MODEL.MASK_TRANSFORMER.TRANSFORMER_DECODER.LAYERS": 3,
    # An untrained model is sure of nothing.
    "MODEL.MASK_TRANSFORMER.TEST.OBJECT_MASK_THRESHOLD": 0.0,
    "MODEL.MASK_TRANSFORMER.TEST.OVERLAP_THRESHOLD": 0.0,
    "INPUT.MIN_SIZE_TEST": 64,
}


@pytest.fixture
def load_benchmark(load_tool, monkeypatch):
    """As ``load_tool``, for a script that imports modules beside it."""
    monkeypatch.syspath_prepend(TOOLS)
    return load_tool


@pytest.fixture
def command_line(monkeypatch):
    """Function from the words of a command line, without the script, that makes it this one's."""
    return lambda *words: monkeypatch.setattr(sys, "argv", ["tool.py", *words])


@pytest.fixture(scope="session")
def miniature_options():
    """KEY, VALUE, … that make a miniature of the small config."""
    return [part for key, value in MINIATURE.items() for part in (key, str(value))]


@pytest.fixture(scope="session")
def trained(tmp_path_factory, miniature_options):
    """Folder of a miniature run: config.yaml and model.pth, which predicts one class at least."""
    folder = tmp_path_factory.mktemp("run")
    cfg = build_config(str(SMALL_CONFIG), miniature_options)
    (folder / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    state = build_model(cfg).state_dict()
    (bias,) = (name for name in state if "class" in name and name.endswith("bias"))
    state[bias][-1] = -10.0  # never no-object
    torch.save({"model": state}, folder / "model.pth")
    return folder
