import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BitMasks, Instances
from PIL import Image
from sample_folder import STUFF, THINGS, perfect_output, write_panoptic_folder

from mask_transformers.data.datasets import register_panoptic
from mask_transformers.engine import build_config, build_evaluators

ALL_TASKS = ["panoptic", "instance", "semantic"]


@pytest.fixture
def evaluate(tmp_path):
    """Function (cfg, {change an output}) → results on the first test set."""

    def run(cfg, change=lambda record, output: output, tasks=None):
        name = cfg.DATASETS.TEST[0]
        if tasks:
            cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS = tasks
        evaluators = build_evaluators(cfg, name, str(tmp_path / "results"))
        evaluators.reset()
        for record in DatasetCatalog.get(name):
            output = perfect_output(record, cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES)
            evaluators.process([record], [change(record, output)])
        return evaluators.evaluate()

    return run


@pytest.fixture
def sample(tmp_path):
    """Function (arguments of the folder) → the config that uses it."""

    def make(**arguments):
        folder = tmp_path / tmp_path.parent.name / tmp_path.name  # data set names must differ
        folder.mkdir(parents=True)
        write_panoptic_folder(folder, **arguments)
        return build_config(data=str(folder))

    return make


def test_perfect_predictions_score_100_in_one_pass(sample, evaluate):
    results = evaluate(sample())
    panoptic = results["panoptic_seg"]
    for metric in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st", "PQ-disc", "SQ-box", "RQ-sky"):
        assert panoptic[metric] == pytest.approx(100), metric
    assert results["segm"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP-disc"] == pytest.approx(100)
    assert results["sem_seg"]["mIoU"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("tasks", "types"),
    [(["box"], ["bbox"]), (["instance", "box"], ["bbox", "segm"]), (["instance"], ["segm"])],
)
def test_boxes_and_masks_are_scored_together(sample, tmp_path, evaluate, tasks, types):
    cfg = sample()
    cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS = tasks
    name = cfg.DATASETS.TEST[0]
    assert len(build_evaluators(cfg, name, str(tmp_path / "one"))._evaluators) == 1
    results = evaluate(cfg, tasks=tasks)
    assert list(results) == types
    for metric in ("AP", "AP75", "AP-disc", "AP-box"):
        assert [results[kind][metric] for kind in types] == pytest.approx([100] * len(types))


def test_boxes_are_scored_without_masks(sample, evaluate):
    def boxes_only(record, output):
        output["instances"].remove("pred_masks")
        return {"instances": output["instances"]}

    results = evaluate(sample(), boxes_only, tasks=["box"])
    assert list(results) == ["bbox"]
    assert results["bbox"]["AP"] == pytest.approx(100)


def test_wrong_boxes_lower_the_ap_of_boxes_alone(sample, evaluate):
    def widened(record, output):
        output["instances"].pred_boxes.scale(2, 1)
        return output

    results = evaluate(sample(), widened, tasks=["box", "instance"])
    assert results["bbox"]["AP50"] < 60
    assert results["segm"]["AP"] == pytest.approx(100)


def test_several_processes_count_the_same(sample, evaluate, monkeypatch):
    monkeypatch.setattr("mask_transformers.evaluation.panoptic._IMAGES_PER_PROCESS", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert evaluate(sample(), tasks=["panoptic"])["panoptic_seg"]["PQ"] == pytest.approx(100)


def test_wrong_class_costs_its_share(sample, evaluate):
    def swap_things(record, output):
        ids, segments = output["panoptic_seg"]
        for segment in segments:
            if segment["isthing"]:
                segment["category_id"] = 1 - segment["category_id"]
        return {**output, "panoptic_seg": (ids, segments)}

    panoptic = evaluate(sample(), swap_things)["panoptic_seg"]
    assert (panoptic["PQ_th"], panoptic["PQ_st"], panoptic["PQ"]) == pytest.approx((0, 100, 50))


def test_outputs_of_the_model_are_not_changed(sample, evaluate):
    seen = []

    def remember(record, output):
        seen.append((output["panoptic_seg"][1], [dict(s) for s in output["panoptic_seg"][1]]))
        return output

    evaluate(sample(), remember)
    assert all(after == before for after, before in seen)


def no_predictions(record, output):
    ids, _ = output["panoptic_seg"]
    return {
        "panoptic_seg": (torch.zeros_like(ids), []),
        "instances": output["instances"][:0],
        "sem_seg": output["sem_seg"],
    }


def test_no_predictions_score_zero(sample, evaluate):
    results = evaluate(sample(), no_predictions)
    assert results["panoptic_seg"]["PQ"] == results["panoptic_seg"]["PQ-disc"] == 0
    assert math.isnan(results["segm"]["AP"])


@pytest.mark.parametrize(
    ("categories", "present", "absent"), [(STUFF, "_st", "_th"), (THINGS, "_th", "_st")]
)
def test_only_stuff_or_only_things(sample, evaluate, categories, present, absent):
    results = evaluate(sample(categories=categories))
    panoptic = results["panoptic_seg"]
    assert panoptic["PQ"] == panoptic["PQ" + present] == pytest.approx(100)
    assert math.isnan(panoptic["PQ" + absent])
    assert results["sem_seg"]["mIoU"] == pytest.approx(100)
    assert ("segm" in results) == (categories is THINGS)


def test_images_without_annotation_are_not_scored(sample, tmp_path):
    cfg = sample(val=2)
    name = cfg.DATASETS.TEST[0]
    json_file = Path(MetadataCatalog.get(name).panoptic_json)
    content = json.loads(json_file.read_text())
    bare = content["annotations"].pop()["image_id"]
    json_file.write_text(json.dumps(content))
    cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS = ALL_TASKS
    evaluators = build_evaluators(cfg, name, str(tmp_path / "results"))
    evaluators.reset()
    records = {record["image_id"]: record for record in DatasetCatalog.get(name)}
    [scored] = [record for image, record in records.items() if image != bare]
    output = perfect_output(scored, cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES)
    for record in (scored, records[bare]):
        evaluators.process([record], [output])
    results = evaluators.evaluate()
    assert results["panoptic_seg"]["PQ"] == pytest.approx(100)
    assert results["sem_seg"]["mIoU"] == pytest.approx(100)


def test_more_than_100_objects_are_not_capped(sample, evaluate):
    cfg = sample(val=1, objects=150, categories=THINGS[:1])
    cfg.TEST.DETECTIONS_PER_IMAGE = 200
    results = evaluate(cfg)
    assert results["segm"]["AP"] == pytest.approx(100)
    cfg.TEST.DETECTIONS_PER_IMAGE = 100
    assert evaluate(cfg)["segm"]["AP"] < 80  # COCO's own limit


def test_crowds_are_neither_found_nor_missed(sample, evaluate, tmp_path):
    cfg = sample(val=1)
    name = cfg.DATASETS.TEST[0]
    path = Path(MetadataCatalog.get(name).panoptic_json)
    content = json.loads(path.read_text())
    thing = next(s for s in content["annotations"][0]["segments_info"] if s["category_id"] == 3)
    thing["iscrowd"] = 1
    path.write_text(json.dumps(content))
    results = evaluate(cfg)
    truth = json.loads((tmp_path / "results/instances_from_panoptic.json").read_text())
    assert [a["iscrowd"] for a in truth["annotations"]] == [0, 1]
    assert results["panoptic_seg"]["PQ_th"] == pytest.approx(100)
    assert math.isnan(results["panoptic_seg"]["PQ-box"])
    assert results["segm"]["AP"] == pytest.approx(100)


def test_derived_ground_truth_is_kept_until_the_annotations_change(sample, evaluate, tmp_path):
    cfg = sample(val=1)
    evaluate(cfg)
    path = tmp_path / "results/instances_from_panoptic.json"
    first = path.stat().st_mtime_ns
    evaluate(cfg)
    assert path.stat().st_mtime_ns == first
    png = DatasetCatalog.get(cfg.DATASETS.TEST[0])[0]["pan_seg_file_name"]
    os.utime(png, (1, 1))
    evaluate(cfg)
    assert path.stat().st_mtime_ns != first


def test_missing_predictions_are_named(sample, tmp_path):
    cfg = sample()
    evaluators = build_evaluators(cfg, cfg.DATASETS.TEST[0], str(tmp_path / "results"))
    evaluators.reset()
    with pytest.raises(ValueError, match=r"3 images of .*panoptic_val.json have no prediction"):
        evaluators.evaluate()


def test_impossible_classes_are_named(sample, evaluate):
    def impossible(record, output):
        output["panoptic_seg"][1][0]["category_id"] = 77
        return output

    with pytest.raises(ValueError, match="class 77"):
        evaluate(sample(), impossible, tasks=["panoptic"])


def test_tasks_that_do_not_fit(sample, tmp_path, caplog):
    cfg = sample(categories=STUFF)
    name = cfg.DATASETS.TEST[0]
    cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS = ["instance"]
    with pytest.raises(ValueError, match=rf"'{name}'.*'coco_panoptic_seg'.*\['instance'\]"):
        build_evaluators(cfg, name, str(tmp_path))
    cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS = ["box"]
    with pytest.raises(ValueError, match=r"TASKS is \['box'\]"):
        build_evaluators(cfg, name, str(tmp_path))
    cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS = ALL_TASKS
    build_evaluators(cfg, name, str(tmp_path))
    assert "no annotations to evaluate ['instance']" in caplog.text
    with pytest.raises(ValueError, match=r"'nameless'.*None"):
        build_evaluators(cfg, "nameless", str(tmp_path))


def corners(x, y, w, h):
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def write_coco_instances(root, keys=()):
    """One image with two squares of one class; annotations lack ``keys``."""
    (root / "val").mkdir(parents=True)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(root / "val/a.png")
    squares = [[2, 2, 6, 6], [12, 2, 8, 10]]
    annotations = [
        {
            "id": i + 1,
            "image_id": 5,
            "category_id": 4,
            "iscrowd": 0,
            "bbox": box,
            "area": box[2] * box[3],
            "segmentation": [corners(*box)],
        }
        for i, box in enumerate(squares)
    ]
    annotations = [{k: v for k, v in a.items() if k not in keys} for a in annotations]
    images = [{"id": 5, "file_name": "a.png", "height": 20, "width": 30}]
    categories = [{"id": 4, "name": "square"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances_val.json").write_text(json.dumps(content))
    return squares


@pytest.mark.parametrize(
    ("task", "tasks", "types"),
    [
        ("instance", ["instance"], ["segm"]),
        ("instance", ["instance", "box"], ["bbox", "segm"]),
        ("box", ["box"], ["bbox"]),
    ],
)
def test_coco_instances(tmp_path, task, tasks, types):
    folder = tmp_path / f"{tmp_path.name}_squares"
    squares = write_coco_instances(folder, ["segmentation", "iscrowd"] if task == "box" else [])
    cfg = build_config(data=str(folder), data_task=task)
    cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS = tasks
    masks = torch.zeros(2, 20, 30, dtype=torch.bool)
    for mask, (x, y, w, h) in zip(masks, squares, strict=True):
        mask[y : y + h, x : x + w] = True
    instances = Instances((20, 30), pred_masks=masks, scores=torch.ones(2))
    instances.pred_classes = torch.zeros(2).long()
    instances.pred_boxes = BitMasks(masks).get_bounding_boxes()
    name = cfg.DATASETS.TEST[0]
    evaluators = build_evaluators(cfg, name, str(tmp_path / "results"))
    evaluators.reset()
    evaluators.process(DatasetCatalog.get(name), [{"instances": instances}])
    results = evaluators.evaluate()
    assert list(results) == types
    for kind in types:
        assert results[kind]["AP"] == pytest.approx(100)


def test_data_of_boxes_have_no_masks_to_score(tmp_path):
    folder = tmp_path / f"{tmp_path.name}_squares"
    write_coco_instances(folder, ["segmentation"])
    with pytest.raises(ValueError, match="has no 'segmentation'"):
        build_config(data=str(folder))
    tasks = ["MODEL.MASK_TRANSFORMER.TEST.TASKS", ["instance"]]
    cfg = build_config("", tasks, data=str(folder), data_task="box")
    with pytest.raises(ValueError, match=r"'coco_box' can be evaluated for \['box'\]"):
        build_evaluators(cfg, cfg.DATASETS.TEST[0], str(tmp_path))


def write_semantic(root, labels):
    for folder in ("val", "labels_val"):
        (root / folder).mkdir(parents=True)
    Image.fromarray(np.zeros((*labels.shape[:2], 3), np.uint8)).save(root / "val/a.png")
    Image.fromarray(labels).save(root / "labels_val/a.png")
    (root / "classes.json").write_text(json.dumps(["road", "tree", "car"]))
    return build_config(data=str(root))


def test_semantic_labels(tmp_path):
    labels = np.zeros((8, 9), np.uint8)
    labels[:, 3:], labels[:2] = 1, 255
    cfg = write_semantic(tmp_path / f"{tmp_path.name}_roads", labels)
    name = cfg.DATASETS.TEST[0]
    evaluators = build_evaluators(cfg, name, str(tmp_path / "results"))
    predicted = torch.from_numpy(np.where(labels == 255, 2, labels)).long()
    scores = torch.nn.functional.one_hot(predicted, 3).permute(2, 0, 1).float()
    evaluators.reset()
    evaluators.process(DatasetCatalog.get(name), [{"sem_seg": scores}])
    assert evaluators.evaluate()["sem_seg"]["mIoU"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.full((8, 9), 7, np.uint8), "class id 7"), (np.zeros((8, 9, 3), np.uint8), "one channel")],
)
def test_bad_label_files_are_named(tmp_path, labels, message):
    root = tmp_path / f"{tmp_path.parent.name}_{tmp_path.name}"
    cfg = write_semantic(root, labels)
    name = cfg.DATASETS.TEST[0]
    evaluators = build_evaluators(cfg, name, str(tmp_path / "results"))
    evaluators.reset()
    with pytest.raises(ValueError, match=rf"a\.png.*{message}"):
        evaluators.process(DatasetCatalog.get(name), [{"sem_seg": torch.zeros(3, 8, 9)}])


@pytest.mark.parametrize("instance_json", ["", "panoptic_coco_detection_format.json"])
def test_official_coco_annotations(shared, tmp_path, evaluate, instance_json):
    root = shared / "data/coco_sample"
    name = f"coco_sample_{tmp_path.name}"
    folders = root / "panoptic_examples", root / "input_images"
    register_panoptic(name, root / "panoptic_examples.json", *folders)
    cfg = build_config("", ["DATASETS.TEST", (name,)])
    if instance_json:  # holds the stuff too, as COCO's converter writes it
        content = json.loads((root / instance_json).read_text())
        things = MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id
        for key, of in (("annotations", "category_id"), ("categories", "id")):
            content[key] = [item for item in content[key] if item[of] in things]
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content))
        object.__setattr__(MetadataCatalog.get(name), "json_file", str(path))
    results = evaluate(cfg, tasks=[*ALL_TASKS, "box"])
    assert results["panoptic_seg"]["PQ"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["sem_seg"]["mIoU"] == pytest.approx(100)
    annotations = json.loads((root / "panoptic_examples.json").read_text())["annotations"]
    categories = {s["category_id"] for a in annotations for s in a["segments_info"]}
    scored = [key for key, value in results["panoptic_seg"].items() if not math.isnan(value)]
    assert sum(key.startswith("PQ-") for key in scored) == len(categories)
