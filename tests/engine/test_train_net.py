import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from pixel_classifier import small_config
from sample_folder import write_panoptic_folder

from mask_transformers.engine import Trainer, load_weights
from mask_transformers.engine.setup import evaluation_dir, refuse_to_overwrite

TOOL = Path(__file__).parents[2] / "tools/train_net.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_panoptic_folder(tmp_path_factory.mktemp("train_net_sample"))


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("train_net", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tool, folder, tmp_path, monkeypatch):
    """Function (arguments) → nothing; runs the tool in this process."""

    def call(*arguments, options=()):
        config = tmp_path / "small.yaml"
        cfg = small_config(folder, tmp_path / "run")
        config.write_text(cfg.dump())
        monkeypatch.setattr(
            sys, "argv", [str(TOOL), "--config-file", str(config), *arguments, *options]
        )
        tool.main(tool.parse_arguments())

    return call


def test_train_then_evaluate_then_resume(run, tmp_path):
    run()
    results = tmp_path / "run/inference" / "train_net_sample0_panoptic_val" / "results.json"
    assert results.is_file()
    before = results.read_text()
    results.unlink()
    weights = str(tmp_path / "run/model_final.pth")
    run("--eval-only", options=["MODEL.WEIGHTS", weights])
    assert results.read_text() == before
    run("--resume", options=["SOLVER.MAX_ITER", "4"])
    assert torch.load(tmp_path / "run/model_final.pth", weights_only=True)["iteration"] == 3


AUGMENTED = ["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(24, 36)"]


def test_evaluation_with_test_time_augmentation_reports_both(run, tmp_path):
    run()
    options = ["MODEL.WEIGHTS", str(tmp_path / "run/model_final.pth")]
    inference = tmp_path / "run/inference" / "train_net_sample0_panoptic_val"
    plain = json.loads((inference / "results.json").read_text())
    one_view = ["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(24,)", "TEST.AUG.FLIP", "False"]
    run("--eval-only", options=options + one_view)
    results = json.loads((inference / "results.json").read_text())
    assert results.pop("sem_seg_TTA") == plain["sem_seg"]
    assert results == plain
    run("--eval-only", options=options + AUGMENTED)
    results = json.loads((inference / "results.json").read_text())
    assert results["sem_seg"] == plain["sem_seg"]
    assert results["sem_seg_TTA"]["mIoU"] > 0
    assert set(results) == {*plain, "sem_seg_TTA"}


def test_test_time_augmentation_is_semantic(run):
    tasks = ["MODEL.MASK_TRANSFORMER.TEST.TASKS", "['panoptic']"]
    with pytest.raises(ValueError, match=r"TEST\.AUG\.ENABLED is for semantic.*\['panoptic'\]"):
        run("--eval-only", options=AUGMENTED + tasks)


def test_own_data_in_one_flag(run, tmp_path):
    other = write_panoptic_folder(tmp_path / f"{tmp_path.name}_flag")
    run("--data", str(other))
    name = f"{other.name}_panoptic_val"
    assert name in DatasetCatalog
    assert (tmp_path / "run/inference" / name / "results.json").is_file()


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileNotFoundError, r"weights\.pth"),
        (b"no checkpoint", ValueError, r"weights\.pth cannot be loaded"),
        ({"model": {"head.weight": torch.zeros(4, 8, 1, 1)}}, ValueError, "missing are backbone"),
        ({"model": {"other": torch.zeros(1)}}, ValueError, r"weights\.pth"),
    ],
)
def test_bad_weights_are_named(run, tmp_path, content, error, message):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        torch.save(content, path)
    with pytest.raises(error, match=message):
        run("--eval-only", options=["MODEL.WEIGHTS", str(path)])


def test_nothing_to_evaluate_on_is_an_error(run):
    with pytest.raises(ValueError, match=r"DATASETS\.TEST is empty"):
        run("--eval-only", options=["DATASETS.TEST", "()"])


def test_weights_of_another_size_are_refused(folder, tmp_path):
    model = Trainer.build_model(small_config(folder, tmp_path))
    state = model.state_dict()
    state["head.bias"] = torch.zeros(9)
    torch.save({"model": state}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"of another shape are head\.bias"):
        load_weights(model, str(tmp_path / "other.pth"))
    with pytest.raises(ValueError, match=r"MODEL\.WEIGHTS is empty"):
        load_weights(model, "")


def test_an_evaluation_leaves_an_earlier_run_as_it_is(tmp_path):
    run = tmp_path / "run"
    assert evaluation_dir(str(run)) == str(run)
    run.mkdir()
    (run / "config.yaml").touch()
    for name in ("evaluation", "evaluation.1", "evaluation.2"):
        assert evaluation_dir(str(run)) == str(run / name)
        (run / name).mkdir()


def test_nothing_to_resume_is_said(run, caplog):
    run("--resume")
    assert "holds no checkpoint to resume" in caplog.text


@pytest.mark.parametrize("mark", ["metrics.json", "config.yaml"])
def test_an_interrupted_run_or_an_evaluation_is_not_mixed_with_a_new_run(tmp_path, mark):
    refuse_to_overwrite(str(tmp_path))
    (tmp_path / mark).touch()
    with pytest.raises(FileExistsError, match="holds a run already"):
        refuse_to_overwrite(str(tmp_path))


def test_bad_arguments_end_in_one_line(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    command = [sys.executable, str(TOOL), "OUTPUT_DIR", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: OUTPUT_DIR {tmp_path} holds a run")
    assert "Traceback" not in done.stderr
