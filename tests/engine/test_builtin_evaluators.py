"""The built-in data sets, prepared from miniature trees, meet the evaluators."""

import numpy as np
import published_trees as trees
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image
from sample_folder import perfect_output

from mask_transformers.data import MaskTransformerMapper
from mask_transformers.data.datasets.ade20k import register_ade20k
from mask_transformers.data.datasets.builtin import datasets_root
from mask_transformers.data.datasets.cityscapes import register_cityscapes
from mask_transformers.data.datasets.coco_semantic import register_coco_semantic
from mask_transformers.data.datasets.mapillary import register_mapillary
from mask_transformers.data.preparation import ade20k, cityscapes, coco, mapillary
from mask_transformers.data.preparation.conversion import run_conversion
from mask_transformers.engine import build_config, build_evaluators

SETS = [
    ("ADEChallengeData2016", trees.write_ade20k, ade20k, register_ade20k),
    ("cityscapes", trees.write_cityscapes, cityscapes, register_cityscapes),
    ("mapillary_vistas", trees.write_mapillary, mapillary, register_mapillary),
    ("coco", trees.write_coco, coco, register_coco_semantic),
]
PANOPTIC = {  # name without split → classes of its segments, things among them
    "ade20k_panoptic": ({0, 2, 7, 12}, {7, 12}),
    "cityscapes_fine_panoptic": ({0, 10, 11, 13}, {11, 13}),
    "mapillary_vistas_panoptic": ({0, 13, 27, 55}, {0, 55}),
}
INSTANCE = {"ade20k_instance": {0, 3}, "cityscapes_fine_instance_seg": {0, 2}}
SEMANTIC = {
    "ade20k_sem_seg": {0, 2, 7, 12},
    "cityscapes_fine_sem_seg": {0, 10, 11, 13},
    "mapillary_vistas_sem_seg": {0, 13, 27, 55},
    "coco_2017": {0, 79, 100, 119},
}


@pytest.fixture(scope="module")
def _prepared(tmp_path_factory):
    """All data sets below a folder of their own."""
    root = tmp_path_factory.mktemp("datasets")
    for folder, write, preparation, register in SETS:
        write(root / folder)
        for conversion in preparation.conversions(root / folder):
            assert conversion.missing() == []
            run_conversion(conversion)
        register(root)
    yield
    for *_, register in SETS:
        register(datasets_root())


def config(name, tasks):
    metadata = MetadataCatalog.get(name)
    cfg = build_config("", ["DATASETS.TEST", f"('{name}',)"])
    cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS = tasks
    classes = metadata.get("stuff_classes") or metadata.thing_classes
    cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES = len(classes)
    return cfg


def evaluate(name, tasks, predict, folder):
    cfg = config(name, tasks)
    evaluators = build_evaluators(cfg, name, str(folder))
    evaluators.reset()
    for record in DatasetCatalog.get(name):
        evaluators.process([record], [predict(record, cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES)])
    return evaluators.evaluate()


def mapped_classes(name, task, classes):
    [label] = {MetadataCatalog.get(name).get("ignore_label", 255)}
    mapper = MaskTransformerMapper(
        annotations=task, augmentations=[], num_classes=classes, ignore_label=label
    )
    records = DatasetCatalog.get(name)
    assert records
    return [set(mapper(record)["instances"].gt_classes.tolist()) for record in records]


@pytest.mark.parametrize("name", PANOPTIC)
@pytest.mark.usefixtures("_prepared")
def test_panoptic(name, tmp_path):
    name, classes, things = f"{name}_val", *PANOPTIC[name]
    results = evaluate(name, ["panoptic", "instance", "semantic"], perfect_output, tmp_path)
    assert results["panoptic_seg"]["PQ"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)
    # The labels of ADE20K show a person that has no instance annotation and no segment.
    person = results["sem_seg"].pop("IoU-person", 100)
    assert person < 100 if "ade20k" in name else person == pytest.approx(100)
    ious = [value for key, value in results["sem_seg"].items() if key.startswith("IoU-")]
    assert np.nanmin(ious) == pytest.approx(100)
    metadata = MetadataCatalog.get(name)
    assert things <= set(metadata.thing_dataset_id_to_contiguous_id.values())
    assert not (classes - things) & set(metadata.thing_dataset_id_to_contiguous_id.values())
    # Crowds (class 11) are not learnt from.
    wanted = classes - ({11} if "cityscapes" in name else set())
    assert all(
        found == wanted for found in mapped_classes(name, "panoptic", len(metadata.stuff_classes))
    )


def perfect_instances(record, num_classes):
    mapper = MaskTransformerMapper(
        annotations="instance", augmentations=[], num_classes=num_classes
    )
    truth = mapper(record)["instances"]
    result = Instances(truth.image_size)
    result.pred_masks, result.pred_classes = truth.gt_masks.tensor, truth.gt_classes
    result.scores = torch.ones(len(truth))
    result.pred_boxes = Boxes(torch.zeros(len(truth), 4))
    return {"instances": result}


@pytest.mark.parametrize("name", INSTANCE)
@pytest.mark.usefixtures("_prepared")
def test_instance(name, tmp_path):
    wanted = INSTANCE[name] - ({0} if "cityscapes" in name else set())
    name = f"{name}_val"
    results = evaluate(name, ["instance"], perfect_instances, tmp_path)
    assert results["segm"]["AP"] == pytest.approx(100)
    count = len(MetadataCatalog.get(name).thing_classes)
    assert all(found == wanted for found in mapped_classes(name, "instance", count))


def perfect_labels(record, num_classes):
    label = np.asarray(Image.open(record["sem_seg_file_name"])).astype(np.int64)
    label = torch.from_numpy(np.where(label >= num_classes, 0, label))
    scores = torch.nn.functional.one_hot(label, num_classes).permute(2, 0, 1).float()
    return {"sem_seg": scores}


@pytest.mark.parametrize("name", SEMANTIC)
@pytest.mark.usefixtures("_prepared")
def test_semantic(name, tmp_path):
    wanted = SEMANTIC[name]
    name = "coco_2017_val_sem_seg" if name == "coco_2017" else f"{name}_val"
    results = evaluate(name, ["semantic"], perfect_labels, tmp_path)
    assert results["sem_seg"]["mIoU"] == pytest.approx(100)
    count = len(MetadataCatalog.get(name).stuff_classes)
    assert all(found == wanted for found in mapped_classes(name, "semantic", count))


@pytest.mark.parametrize("prediction", [0, 1, 150])
@pytest.mark.usefixtures("_prepared")
def test_instances_of_what_is_no_thing_are_refused(prediction, tmp_path):
    def predict(record, num_classes):
        output = perfect_output(record, num_classes)
        output["instances"].pred_classes[0] = prediction
        return output

    with pytest.raises(ValueError, match=rf"classes \[{prediction}\], which are no things"):
        evaluate("ade20k_panoptic_val", ["instance"], predict, tmp_path)
