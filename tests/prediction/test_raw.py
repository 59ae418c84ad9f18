import json

import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_mask

from mask_transformers.prediction.raw import RawResults

SIZE = (20, 30)  # height, width


@pytest.fixture
def raw(tmp_path):
    metadata = Metadata(name="raw", thing_dataset_id_to_contiguous_id={7: 0, 9: 1})
    return RawResults(tmp_path, metadata)


def detections(*boxes):
    """What a detector without masks finds: of class 1, all with score 0.25."""
    found = Instances(SIZE)
    found.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    found.scores = torch.full((len(boxes),), 0.25)
    found.pred_classes = torch.ones(len(boxes), dtype=torch.int64)
    return found


def written(raw, tmp_path, source, instances):
    raw.add(tmp_path / source, {"instances": instances})
    raw.write()
    return json.loads((tmp_path / "instances.json").read_text())


def test_predicted_boxes_are_cut_to_the_image(raw, tmp_path):
    boxes = [[2.5, 3.0, 10.0, 12.0], [-5.0, -1.0, 99.0, 5.0], [40.0, 2.0, 50.0, 4.0]]
    found = written(raw, tmp_path, "12.png", detections(*boxes))
    assert found[0] == {
        "image_id": 12,
        "category_id": 9,
        "score": 0.25,
        "bbox": [2.5, 3.0, 7.5, 9.0],
    }
    assert [entry["bbox"] for entry in found[1:]] == [[0, 0, 30, 5], [30, 2, 0, 2]]


def test_masks_come_with_the_predicted_boxes(raw, tmp_path):
    instances = detections([9.5, 4.0, 12.0, 9.0])
    instances.pred_masks = torch.zeros(1, *SIZE, dtype=torch.bool)
    instances.pred_masks[0, 4:9, 10:12] = True
    (entry,) = written(raw, tmp_path, "a.png", instances)
    assert entry["bbox"] == [9.5, 4, 2.5, 5]
    assert entry["image_id"] == "a"
    assert (coco_mask.decode(entry["segmentation"]) == instances.pred_masks[0].numpy()).all()


def test_an_image_without_objects(raw, tmp_path):
    assert written(raw, tmp_path, "a.png", detections()) == []


def test_a_file_is_named_once_for_all_tasks(raw, tmp_path):
    source = tmp_path / "a.png"
    for tasks in (["box"], ["instance"], ["instance", "box"]):
        assert raw.paths(source, tasks) == [tmp_path / "instances.json"]
    assert raw.paths(source, ["box", "panoptic", "semantic"]) == [
        tmp_path / "panoptic/a.png",
        tmp_path / "semantic/a.png",
        tmp_path / "instances.json",
        tmp_path / "panoptic.json",
    ]
