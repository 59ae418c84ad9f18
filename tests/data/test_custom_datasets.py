import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from mask_transformers.data.datasets import (
    register_boxes,
    register_instances,
    register_panoptic,
    register_semantic,
    suggest_queries,
)
from mask_transformers.data.datasets.segment_counts import SegmentCounts, summarise_counts


def panoptic(root, name="mine"):
    register_panoptic(name, root / "panoptic_train.json", root / "panoptic_train", root / "train")


def instances(root, name="mine"):
    register_instances(name, root / "instances_train.json", root / "train")


def boxes(root, name="mine"):
    register_boxes(name, root / "instances_train.json", root / "train")


def semantic(root, name="mine", classes=("box", "disc", "ground"), ignore_label=255):
    register_semantic(name, root / "train", root / "labels_train", classes, ignore_label)


REGISTER = {"panoptic": panoptic, "instance": instances, "semantic": semantic, "box": boxes}


def test_panoptic_records_and_metadata(tmp_path, data):
    panoptic(data.write_folder(tmp_path, "panoptic"))
    first, second = DatasetCatalog.get("mine")
    assert first["file_name"] == str(tmp_path / "train" / "a.jpg")
    assert first["pan_seg_file_name"] == str(tmp_path / "panoptic_train" / "a.png")
    assert (first["image_id"], first["height"], first["width"]) == (5, 24, 32)
    assert [(s["id"], s["category_id"], s["isthing"]) for s in first["segments_info"]] == [
        (70000, 2, False),
        (300, 1, True),
        (9, 0, True),
    ]
    assert second["segments_info"] == []
    assert "pan_seg_file_name" not in second
    metadata = MetadataCatalog.get("mine")
    assert metadata.thing_classes == metadata.stuff_classes == ["box", "disc", "ground"]
    assert metadata.thing_dataset_id_to_contiguous_id == {2: 0, 4: 1}
    assert metadata.stuff_dataset_id_to_contiguous_id == {3: 2}
    assert metadata.evaluator_type == "coco_panoptic_seg"
    assert metadata.ignore_label == 255
    assert len(metadata.thing_colors) == 3


def test_instance_records_and_metadata(tmp_path, data):
    instances(data.write_folder(tmp_path, "instance"))
    first, second = DatasetCatalog.get("mine")
    assert [(a["category_id"], a["iscrowd"]) for a in first["annotations"]] == [
        (1, 0),
        (0, 0),
        (0, 1),
    ]
    assert second["annotations"] == []
    metadata = MetadataCatalog.get("mine")
    assert metadata.thing_classes == ["box", "disc"]
    assert metadata.thing_dataset_id_to_contiguous_id == {2: 0, 4: 1}
    assert metadata.evaluator_type == "coco"


def test_boxes_need_no_segmentations(tmp_path, data):
    boxes(data.write_folder(tmp_path, "box"))
    first, _ = DatasetCatalog.get("mine")
    assert [annotation["bbox"] for annotation in first["annotations"]] == [[3, 2, 9, 7]] * 3
    assert "segmentation" not in first["annotations"][0]
    metadata = MetadataCatalog.get("mine")
    assert metadata.thing_classes == ["box", "disc"]
    assert metadata.evaluator_type == "coco_box"


def test_semantic_records_and_metadata(tmp_path, data):
    data.write_folder(tmp_path, "semantic")
    (tmp_path / "train" / "deep").mkdir()
    (tmp_path / "labels_train" / "deep").mkdir()
    (tmp_path / "train" / "a.jpg").rename(tmp_path / "train" / "deep" / "a.JPEG")
    (tmp_path / "labels_train" / "a.png").rename(tmp_path / "labels_train" / "deep" / "a.png")
    semantic(tmp_path)
    first, second = DatasetCatalog.get("mine")
    assert first["image_id"] == "b"
    assert second["file_name"] == str(tmp_path / "train" / "deep" / "a.JPEG")
    assert second["sem_seg_file_name"] == str(tmp_path / "labels_train" / "deep" / "a.png")
    metadata = MetadataCatalog.get("mine")
    assert metadata.stuff_classes == ["box", "disc", "ground"]
    assert (metadata.evaluator_type, metadata.ignore_label) == ("sem_seg", 255)


def test_own_colours_are_kept(tmp_path, data):
    data.write_folder(tmp_path, "panoptic")
    content = data.panoptic_json()
    content["categories"][0]["color"] = [1, 2, 3]
    data.write_json(tmp_path / "panoptic_train.json", content)
    panoptic(tmp_path)
    assert MetadataCatalog.get("mine").stuff_colors[2] == [1, 2, 3]


@pytest.mark.parametrize("task", REGISTER)
def test_registering_again(tmp_path, data, task):
    first = data.write_folder(tmp_path / "one", task)
    second = data.write_folder(tmp_path / "two", task)
    register = REGISTER[task]
    register(first)
    register(first)
    with pytest.raises(ValueError, match="'mine' is registered already, with other arguments"):
        register(second)
    assert str(first) in DatasetCatalog.get("mine")[0]["file_name"]
    DatasetCatalog.remove("mine")
    register(second)
    assert str(second) in DatasetCatalog.get("mine")[0]["file_name"]
    assert MetadataCatalog.get("mine").image_root == str(second / "train")


def test_names_of_others_are_refused(tmp_path, data):
    with pytest.raises(ValueError, match="registered already, by another call"):
        semantic(data.write_folder(tmp_path, "semantic"), name="coco_2017_val")


@pytest.mark.parametrize(
    ("task", "path"),
    [
        ("panoptic", "panoptic_train.json"),
        ("panoptic", "panoptic_train"),
        ("panoptic", "train"),
        ("instance", "instances_train.json"),
        ("instance", "train"),
        ("semantic", "labels_train"),
        ("semantic", "train"),
    ],
)
def test_missing_folders_and_json_are_named_at_once(tmp_path, data, task, path):
    data.write_folder(tmp_path, task)
    (tmp_path / path).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError) as caught:
        REGISTER[task](tmp_path)
    assert f"{tmp_path / path} does not exist" in str(caught.value)
    assert "mine" not in DatasetCatalog


@pytest.mark.parametrize(
    ("task", "path"),
    [
        ("panoptic", "train/b.jpg"),
        ("panoptic", "panoptic_train/a.png"),
        ("instance", "train/a.jpg"),
        ("semantic", "labels_train/a.png"),
        ("semantic", "train/a.jpg"),
    ],
)
def test_missing_files_are_named_when_records_load(tmp_path, data, task, path):
    data.write_folder(tmp_path, task)
    REGISTER[task](tmp_path)
    (tmp_path / path).unlink()
    with pytest.raises(FileNotFoundError, match=path.replace("train/a.jpg", "a.(jpg|png)")):
        DatasetCatalog.get("mine")


def test_at_most_five_missing_files_are_named(tmp_path, data):
    data.write_folder(tmp_path, "panoptic")
    content = data.panoptic_json()
    content["images"] = [{"id": i, "file_name": f"{i}.jpg"} for i in range(5, 14)]
    data.write_json(tmp_path / "panoptic_train.json", content)
    panoptic(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        DatasetCatalog.get("mine")
    assert str(caught.value).startswith("9 images of ")
    assert str(caught.value).count(".jpg") == 5


def test_two_images_of_one_name(tmp_path, data):
    semantic(data.write_folder(tmp_path, "semantic"))
    data.save(tmp_path / "train" / "a.png", data.scene()[0])
    with pytest.raises(ValueError, match=r"a\.jpg .*a\.png"):
        DatasetCatalog.get("mine")


@pytest.mark.parametrize("task", ["panoptic", "instance"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid json"),
        ("[]", "needs a list 'images'"),
        ('{"images": [], "annotations": {}, "categories": []}', "needs a list 'annotations'"),
        ('{"images": [], "annotations": []}', "needs a list 'categories'"),
        ('{"images": [], "annotations": [], "categories": []}', "no categories"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "no 'file_name'"),
    ],
)
def test_invalid_json(tmp_path, data, task, text, words):
    data.write_folder(tmp_path, task)
    for name in ("panoptic", "instances"):
        (tmp_path / f"{name}_train.json").write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        REGISTER[task](tmp_path)
    assert "_train.json" in str(caught.value)


def alter(content, path, value):
    """Set, or with None delete, the entry of ``content`` at a path of keys and indices."""
    *parents, last = path
    for key in parents:
        content = content[key]
    if value is None:
        del content[last]
    else:
        content[last] = value


SEGMENT = ("annotations", 0, "segments_info", 0)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("images", 1, "id"), 5, "image id 5 occurs more than once"),
        (("categories", 0, "id"), 4, "category id 4 occurs more than once"),
        (("categories", 0, "isthing"), None, "category 3 has no 'isthing'"),
        (("annotations", 0, "image_id"), 8, "id 8, which is not in 'images'"),
        (("annotations", 0, "segments_info"), {}, "is not a list"),
        (("annotations", 0, "file_name"), None, "has no 'file_name'"),
        ((*SEGMENT, "category_id"), 8, "segment 70000 .* id 8, which is not in 'categories'"),
        ((*SEGMENT, "id"), 300, "segment id 300 occurs more than once"),
        ((*SEGMENT, "id"), 0, "0 is void"),
        ((*SEGMENT, "id"), 2**24, "segment ids are in"),
        ((*SEGMENT, "area"), None, "segment 70000 .* has no 'area'"),
    ],
)
def test_contradictions_in_panoptic_json(tmp_path, data, path, value, words):
    data.write_folder(tmp_path, "panoptic")
    content = data.panoptic_json()
    alter(content, path, value)
    json_file = data.write_json(tmp_path / "panoptic_train.json", content)
    with pytest.raises(ValueError, match=words) as caught:
        panoptic(tmp_path)
    assert json_file in str(caught.value)


def test_two_annotations_of_one_image(tmp_path, data):
    data.write_folder(tmp_path, "panoptic")
    content = data.panoptic_json()
    content["annotations"] *= 2
    data.write_json(tmp_path / "panoptic_train.json", content)
    with pytest.raises(ValueError, match="image 5 has several annotations"):
        panoptic(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("images", 1, "id"), 5, "image id 5 occurs more than once"),
        (("annotations", 1, "id"), 1, "annotation id 1 occurs more than once"),
        (("annotations", 0, "image_id"), 8, "annotation 1 .* id 8, which is not in 'images'"),
        (("annotations", 0, "category_id"), 8, "id 8, which is not in 'categories'"),
        (("annotations", 0, "area"), None, "annotation 1 has no 'area'"),
        (("annotations", 0, "segmentation"), None, "annotation 1 has no 'segmentation'"),
        (("images", 1, "width"), None, "image .* has no 'width'"),
    ],
)
def test_contradictions_in_instance_json(tmp_path, data, path, value, words):
    data.write_folder(tmp_path, "instance")
    content = data.instances_json()
    alter(content, path, value)
    json_file = data.write_json(tmp_path / "instances_train.json", content)
    with pytest.raises(ValueError, match=words) as caught:
        instances(tmp_path)
    assert json_file in str(caught.value)
    if path[-1] == "segmentation":
        boxes(tmp_path)
    else:
        with pytest.raises(ValueError, match=words):
            boxes(tmp_path)


@pytest.mark.parametrize(
    ("classes", "ignore_label", "words"),
    [([], 255, "255 classes"), (["x"] * 256, 255, "255 classes"), (["x"], 256, "ignore label")],
)
def test_impossible_classes(tmp_path, data, classes, ignore_label, words):
    with pytest.raises(ValueError, match=words):
        semantic(data.write_folder(tmp_path, "semantic"), "mine", classes, ignore_label)


def test_empty_annotations_are_allowed(tmp_path, data):
    data.write_folder(tmp_path, "instance")
    content = data.instances_json() | {"annotations": []}
    data.write_json(tmp_path / "instances_train.json", content)
    instances(tmp_path)
    assert [record["annotations"] for record in DatasetCatalog.get("mine")] == [[], []]
    assert suggest_queries("mine").maximum == 0


def test_colours_and_ids_survive_json(tmp_path, data):
    panoptic(data.write_folder(tmp_path, "panoptic"))
    json.dumps(MetadataCatalog.get("mine").as_dict())  # as Detectron2's visualiser and dumps do


@pytest.mark.parametrize(
    ("task", "wanted"), [("panoptic", 3), ("instance", 2), ("semantic", 3), ("box", 2)]
)
def test_suggested_queries(tmp_path, data, task, wanted):
    REGISTER[task](data.write_folder(tmp_path, task))
    counts = suggest_queries("mine")
    assert counts.maximum == wanted
    assert counts.queries == 50
    assert "MODEL.MASK_TRANSFORMER.QUERIES 50" in counts.message


def test_summary_of_counts():
    counts = summarise_counts(list(range(1, 101)))
    assert counts == SegmentCounts(maximum=100, p99=100, median=51)
    assert counts.queries == 130
    assert summarise_counts([*np.full(199, 7).tolist(), 311]).p99 == 7
    assert summarise_counts([311]).queries == 390
    with pytest.raises(ValueError, match="without images"):
        summarise_counts([])
