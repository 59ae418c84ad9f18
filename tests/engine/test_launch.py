import json
import logging
import time
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from pixel_classifier import small_config
from sample_folder import write_panoptic_folder

from mask_transformers.engine import Trainer, launch


def train_and_report(folder, output, options):
    """One process: what it ended with, as a file."""
    torch.set_num_threads(1)
    logging.getLogger("detectron2").setLevel(logging.INFO)
    trainer = Trainer(small_config(folder, output, options))
    start = 100.0 * comm.get_rank()  # clocks of processes disagree
    trainer._hooks[0]._clock = lambda: start + 1.5 * trainer.iter * (1 + comm.get_rank())
    results = trainer.train()
    state = trainer.model.module.state_dict()
    report = {
        "world": comm.get_world_size(),
        "steps": trainer.model.module.steps,
        "rates": [value for value, _ in trainer.storage.history("lr").values()],
        "state": {name: value.double().sum().item() for name, value in state.items()},
        "images": trainer.model.module.images_seen,
        "results": results,
    }
    Path(output, f"report_{comm.get_rank()}.json").write_text(json.dumps(report))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files of this process."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_two_processes_agree_and_evaluate_once(tmp_path, temporary):
    folder = write_panoptic_folder(tmp_path / "two_processes_sample", train=6, val=3)
    output = tmp_path / "run"
    output.mkdir()
    options = ["SOLVER.MAX_ITER", 100, "SOLVER.MAX_MINUTES", 0.1]
    started = time.monotonic()
    launch(train_and_report, 2, args=(str(folder), str(output), options), device="cpu")
    assert time.monotonic() - started < 120
    # The processes met in a file there; what is left is Python's own.
    assert list(temporary.glob("mask_transformers_*")) == []
    first, second = (json.loads((output / f"report_{r}.json").read_text()) for r in (0, 1))
    assert first["world"] == second["world"] == 2
    assert first["steps"] == second["steps"] == 5  # when the first one's clock shows 6 seconds
    assert first["rates"] == second["rates"]
    assert first["state"] == second["state"]
    assert not set(first["images"][:2]) & set(second["images"][:2])
    assert first["results"]["panoptic_seg"]["PQ"] >= 0
    assert not second["results"]
    (saved,) = output.glob("inference/*/results.json")
    assert json.loads(saved.read_text())["panoptic_seg"] == pytest.approx(
        first["results"]["panoptic_seg"]
    )
    (predictions,) = output.glob("inference/*/predictions.json")
    assert len(json.loads(predictions.read_text())["annotations"]) == 3


def fail():
    raise RuntimeError("this process fails")


@pytest.mark.slow
def test_failure_of_a_process_ends_all(temporary):
    with pytest.raises(Exception, match="this process fails"):
        launch(fail, 2, device="cpu")
    # PyTorch leaves files with the errors of processes.
    assert list(temporary.glob("mask_transformers_*")) == []


def test_processes_meet_where_they_are_told(monkeypatch, temporary):
    seen = []

    def start(worker, arguments, nprocs, start_method):
        seen.append((arguments[4], [path.name for path in temporary.iterdir()]))

    monkeypatch.setattr("torch.multiprocessing.start_processes", start)
    launch(print, 2, device="cpu")
    launch(print, 2, num_machines=2, dist_url="tcp://host:1", device="cpu")
    (url, [folder]), told = seen
    assert url == f"file://{temporary}/{folder}/processes"
    assert told == ("tcp://host:1", [])


def test_one_process_is_a_call():
    seen = []
    launch(lambda *args: seen.append(args), 1, args=(1, 2), device="cpu")
    assert seen == [(1, 2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_processes": 0}, "cannot start 0 processes"),
        ({"num_processes": 1, "machine_rank": 1}, "machine 1 of 1"),
        ({"num_processes": 1, "num_machines": 2}, "--dist-url"),
        ({"num_processes": 99, "device": "cuda"}, "--num-gpus 99"),
    ],
)
def test_impossible_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        launch(print, **{"device": "cpu", **arguments})
