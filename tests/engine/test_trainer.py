import itertools
import json
import logging

import numpy as np
import pytest
import torch
from detectron2.engine import AMPTrainer
from PIL import Image
from pixel_classifier import PixelClassifier, small_config
from sample_folder import write_panoptic_folder

from mask_transformers.engine import Trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_panoptic_folder(tmp_path_factory.mktemp("trainer_sample"))


@pytest.fixture
def make(folder, tmp_path):
    """Function (options, clock) → a trainer in tmp_path/run."""

    def build(*options, **arguments):
        return Trainer(small_config(folder, tmp_path / "run", options), **arguments)

    return build


def metrics(tmp_path):
    lines = (tmp_path / "run/metrics.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_training_writes_checkpoints_metrics_and_results(make, tmp_path):
    results = make("TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 2).train()
    run = tmp_path / "run"
    assert (run / "model_final.pth").is_file()
    assert (run / "model_0000001.pth").is_file()
    assert list(run.glob("events.out.tfevents.*"))
    keys = {key for line in metrics(tmp_path) for key in line}
    assert {"total_loss", "lr", "panoptic_seg/PQ", "sem_seg/mIoU"} <= keys
    (saved,) = run.glob("inference/*_val/results.json")
    assert json.loads(saved.read_text())["panoptic_seg"]["PQ"] == results["panoptic_seg"]["PQ"]


def test_training_learns(make):
    trainer = make("SOLVER.MAX_ITER", 60, "SOLVER.BASE_LR", 0.1)
    results = trainer.train()
    losses = trainer.storage.history("total_loss").values()
    assert losses[-1][0] < 0.7 * losses[0][0]
    assert results["sem_seg"]["mIoU"] > 30


def test_resume_goes_on_where_it_was(make):
    make().train()
    trainer = make("SOLVER.MAX_ITER", 5)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 3
    before = trainer.optimizer.state_dict()["state"][0]["step"].item()
    trainer.train()
    assert before == 3
    assert trainer.optimizer.state_dict()["state"][0]["step"] == 5
    assert trainer.scheduler.last_epoch == 5


def test_time_budget_ends_training_in_order(make, tmp_path):
    seconds = itertools.count()  # one per step
    options = ("SOLVER.MAX_MINUTES", 0.1, "SOLVER.MAX_ITER", 1000, "TEST.EVAL_PERIOD", 4)
    options += ("SOLVER.BACKBONE_MULTIPLIER", 1.0)
    trainer = make(*options, clock=lambda: next(seconds))
    results = trainer.train()
    assert trainer.iter == 6
    rates = [value for value, _ in trainer.storage.history("lr").values()]
    assert rates == pytest.approx([0.01 * (1 - i / 6) ** 0.9 for i in range(6)], rel=1e-3)
    assert results["panoptic_seg"]
    checkpoint = torch.load(tmp_path / "run/model_final.pth", weights_only=True)
    assert checkpoint["iteration"] == 5


def test_time_that_was_used_stays_used(make):
    seconds = itertools.count()
    options = ("SOLVER.MAX_MINUTES", 0.1, "SOLVER.MAX_ITER", 1000, "SOLVER.CHECKPOINT_PERIOD", 4)
    make(*options, clock=lambda: next(seconds)).train()
    finished = make(*options, clock=lambda: next(seconds))
    finished.resume_or_load(resume=True)
    assert finished.train()["panoptic_seg"]  # evaluated, but not trained
    assert finished.model.steps == 0
    longer = make("SOLVER.MAX_MINUTES", 0.15, *options[2:], clock=lambda: next(seconds))
    longer.resume_or_load(resume=True)
    longer.train()
    assert longer.model.steps == 3


def test_iterations_may_end_before_the_time(make):
    trainer = make("SOLVER.MAX_MINUTES", 100.0)
    assert trainer.train()["panoptic_seg"]
    assert trainer.model.steps == 3


def test_nan_stops_with_a_message_and_keeps_the_weights(make, monkeypatch):
    monkeypatch.setattr(PixelClassifier, "fail_at", 2)
    trainer = make()
    with pytest.raises(FloatingPointError, match=r"infinite or NaN at iteration=1"):
        trainer.train()
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_mixed_precision_is_left_out_on_cpu(make, caplog):
    with caplog.at_level(logging.INFO, "mask_transformers"):
        trainer = make("SOLVER.AMP.ENABLED", True)
    assert not isinstance(trainer._trainer, AMPTrainer)
    assert "SOLVER.AMP.ENABLED has no effect on cpu" in caplog.text
    trainer.train()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_mixed_precision_on_gpu(make):
    trainer = make("SOLVER.AMP.ENABLED", True, "MODEL.DEVICE", "cuda")
    assert isinstance(trainer._trainer, AMPTrainer)
    assert trainer.train()["panoptic_seg"]
    resumed = make("MODEL.DEVICE", "cpu")
    resumed.resume_or_load(resume=False)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_without_annotations_are_trained_on(tmp_path, workers):
    folder = write_panoptic_folder(tmp_path / f"{tmp_path.name}_empty", train=2)
    path = folder / "panoptic_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segments_info"] = []
    path.write_text(json.dumps(content))
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(folder / "panoptic_train/000.png")
    options = ["DATALOADER.NUM_WORKERS", workers, "SOLVER.IMS_PER_BATCH", 1]
    trainer = Trainer(small_config(folder, tmp_path / "run", options))
    trainer.train()
    assert len({*trainer.model.images_seen}) == 2


def test_missing_initial_weights_are_named(make):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        make("MODEL.WEIGHTS", "nowhere.pth").resume_or_load(resume=False)


def test_nothing_to_train_on_is_an_error(make):
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN is empty"):
        make("DATASETS.TRAIN", ())


def test_tasks_that_do_not_fit_are_refused_before_training(make):
    with pytest.raises(ValueError, match=r"cannot|can be evaluated for"):
        make("MODEL.MASK_TRANSFORMER.TEST.TASKS", ["instance"], "DATASETS.TEST", ("no_such_set",))


def test_a_frozen_detector_needs_weights(make):
    with pytest.raises(ValueError, match=r"FREEZE_DETECTOR needs MODEL\.WEIGHTS"):
        make("MODEL.MASK_TRANSFORMER.MASK_HEAD.FREEZE_DETECTOR", True)
