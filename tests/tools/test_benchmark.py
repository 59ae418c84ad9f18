import json
import sys
from types import SimpleNamespace

import pytest
import torch

from mask_transformers import model_zoo


@pytest.fixture
def tool(load_benchmark, tiny_config, monkeypatch):
    """The tool on miniatures, with a model in the place of that of transformers."""
    tool = load_benchmark("benchmark")
    monkeypatch.setattr(model_zoo, "get_config", tiny_config)
    monkeypatch.setattr(tool, "build_transformers_model", _stand_in)
    monkeypatch.setattr(tool, "peaks_of_processes", lambda *_: {"ours": 1.0, "transformers": 4.0})
    return tool


def _stand_in(ours):
    def call(pixel_values):
        out = ours.raw_outputs(pixel_values)
        masks = {"masks_queries_logits": out.get("pred_masks")}
        logits = dict.fromkeys(("logits", "class_queries_logits"), out["pred_logits"])
        return SimpleNamespace(
            pred_boxes=0.5 * out.get("pred_boxes", torch.ones(1)), **masks, **logits
        )

    return call


@pytest.mark.parametrize(
    ("system", "difference"),
    [("detr", {"logits": 0.0, "boxes": 1.0}), ("maskformer", {"logits": 0.0, "masks": 0.0})],
)
def test_outputs_of_both_are_compared(tool, command_line, capsys, system, difference):
    command_line("inference", "--system", system, "--size", "64", "90", "--threads", "1")
    tool.main()
    report = json.loads(capsys.readouterr().out)
    assert report["difference"] == difference
    assert {which: len(values) for which, values in report["seconds"].items()} == {
        "ours": 7,
        "transformers": 7,
    }
    assert report["share_of_memory"] == 0.25


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["inference"], (640, 640)),
        (["inference", "--system", "detr"], (800, 1066)),
        (["inference", "--size", "96"], (96, 96)),
        (["training-step", "--size", "96", "64"], (96, 64)),
        (["training-step"], (512, 512)),
    ],
)
def test_sizes(tool, command_line, words, size):
    command_line(*words)
    assert tool.parse_arguments().size == size


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["inference", "--size", "1", "2", "3"], "one or two positive numbers"),
        (["inference", "--size", "0"], "one or two positive numbers"),
        (["training-step", "--system", "detr"], "Mask2Former alone"),
    ],
)
def test_wrong_arguments(tool, command_line, capsys, words, error):
    command_line(*words)
    with pytest.raises(SystemExit):
        tool.parse_arguments()
    assert error in capsys.readouterr().err


def test_inputs_of_a_training_step(tool):
    records = tool.random_records(2, (96, 64), 3)
    assert len(records) == 2
    for record in records:
        assert record["image"].shape == (3, 96, 64)
        areas = record["instances"].gt_masks.tensor.flatten(1).sum(1)
        assert areas.tolist() == [32 * 21] * 3


def test_memory_is_measured_by_the_same_command_in_processes(
    load_benchmark, tmp_path, command_line
):
    load_benchmark("benchmark")
    script = tmp_path / "script.py"
    script.write_text("import sys; print('so many', len(sys.argv[-1]), sep='\\n')")
    command_line("inference")
    peaks = sys.modules["peak_memory"].peaks_of_processes(str(script), ["a", "four"])
    assert peaks == {"a": 1.0, "four": 4.0}
