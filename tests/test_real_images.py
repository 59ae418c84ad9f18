"""Real COCO images with their official annotations: mapper, model and evaluation together."""

import math

import torch
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model

from mask_transformers.data.datasets import register_panoptic
from mask_transformers.data.mapper import MaskTransformerMapper
from mask_transformers.engine.evaluators import build_evaluators

TASKS = ["panoptic", "instance", "semantic"]


def test_real_images_through_mapper_model_and_evaluation(shared, tiny_config, tmp_path):
    root = shared / "data/coco_sample"
    name = f"real_images_{tmp_path.name}"
    folders = root / "panoptic_examples", root / "input_images"
    register_panoptic(name, root / "panoptic_examples.json", *folders)
    keys = {
        "DATASETS.TRAIN": (name,),
        "DATASETS.TEST": (name,),
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.LSJ.IMAGE_SIZE": 256,
        "INPUT.LSJ.MIN_SCALE": 0.9,
        "INPUT.MIN_SIZE_TEST": 160,
        "MODEL.MASK_TRANSFORMER.TEST.TASKS": TASKS,
        "MODEL.MASK_TRANSFORMER.TEST.OBJECT_MASK_THRESHOLD": 0.0,
        "MODEL.MASK_TRANSFORMER.TEST.OVERLAP_THRESHOLD": 0.0,
    }
    cfg = tiny_config(keys=keys)
    model = build_model(cfg)
    mapper = MaskTransformerMapper(cfg, is_train=True)
    records = [mapper(record) for record in DatasetCatalog.get(name)]
    assert len(records) == 2
    assert all(len(record["instances"]) > 5 for record in records)
    sum(model(records).values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)

    evaluators = build_evaluators(cfg, name, str(tmp_path / "results"))
    results = inference_on_dataset(model, build_detection_test_loader(cfg, name), evaluators)
    assert set(results) == {"panoptic_seg", "segm", "sem_seg"}
    scores = results["panoptic_seg"]["PQ"], results["segm"]["AP"], results["sem_seg"]["mIoU"]
    assert all(math.isfinite(score) and 0 <= score <= 100 for score in scores)
