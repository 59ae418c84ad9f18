import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from mask_transformers.evaluation.panoptic_ground_truth import (
    class_map_reader,
    read_panoptic_ids,
    write_instance_json,
)

CATEGORIES = [{"id": 70, "contiguous_id": 0, "name": "cat"}]


@pytest.fixture
def record(tmp_path):
    """A thing (id 1), a crowd (id 300), stuff (id 70000) and void."""
    ids = np.zeros((4, 6), np.uint32)
    ids[0], ids[1, :2], ids[2:] = 1, 300, 70000
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    segments = [
        {"id": 1, "category_id": 0, "isthing": True, "iscrowd": 0},
        {"id": 300, "category_id": 0, "isthing": True, "iscrowd": 1},
        {"id": 70000, "category_id": 1, "isthing": False, "iscrowd": 0},
    ]
    return {
        "image_id": "first",
        "file_name": "images/a.jpg",
        "pan_seg_file_name": str(tmp_path / "a.png"),
        "segments_info": segments,
    }


def test_ids_are_read_from_colours(record):
    assert np.unique(read_panoptic_ids(record["pan_seg_file_name"])).tolist() == [0, 1, 300, 70000]


def test_things_become_coco_annotations(record, tmp_path):
    path = tmp_path / "instances.json"
    write_instance_json([record], CATEGORIES, path, "a test")
    content = json.loads(path.read_text())
    assert content["images"] == [{"id": "first", "file_name": "a.jpg", "height": 4, "width": 6}]
    assert content["categories"] == [{"id": 70, "name": "cat"}]
    thing, crowd = content["annotations"]
    assert (thing["id"], thing["category_id"], thing["area"], thing["iscrowd"]) == (1, 70, 6, 0)
    assert (crowd["id"], crowd["area"], crowd["iscrowd"], crowd["bbox"]) == (2, 2, 1, [0, 1, 2, 1])
    assert mask_util.decode(thing["segmentation"])[0].all()
    assert not list(tmp_path.glob("*.tmp*"))


def test_image_without_annotations(tmp_path):
    record = {"image_id": 3, "file_name": "b.jpg", "height": 5, "width": 7, "segments_info": []}
    write_instance_json([record], CATEGORIES, tmp_path / "instances.json", "a test")
    content = json.loads((tmp_path / "instances.json").read_text())
    assert (content["images"][0]["height"], content["annotations"]) == (5, [])


def test_class_maps_ignore_what_has_no_segment(record):
    classes = class_map_reader([record], 255)(record["pan_seg_file_name"], dtype=int)
    assert classes[:, 0].tolist() == [0, 0, 1, 1]
    assert classes[1, 2:].tolist() == [255] * 4
