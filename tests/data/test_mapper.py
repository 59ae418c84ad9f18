import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.datasets.coco import load_coco_json
from detectron2.structures import BitMasks
from fvcore.transforms.transform import CropTransform, HFlipTransform, PadTransform
from PIL import Image

from mask_transformers.data import MaskTransformerMapper
from mask_transformers.data.augmentations import QuarterTurnTransform
from mask_transformers.data.datasets.records import panoptic_records
from mask_transformers.data.target_instances import mask_boxes


def box_table(instances):
    boxes = instances.gt_boxes.tensor.tolist()
    return dict(zip(instances.gt_classes.tolist(), boxes, strict=True))


def mapper(annotations, augmentations=(), num_classes=3, ignore_label=255):
    return MaskTransformerMapper(
        annotations=annotations,
        augmentations=list(augmentations),
        num_classes=num_classes,
        ignore_label=ignore_label,
    )


@pytest.fixture
def records(tmp_path, data):
    """One record of the scene per kind of annotation."""
    data.write_folder(tmp_path, "panoptic")
    data.write_folder(tmp_path, "instance")
    data.write_folder(tmp_path, "semantic")
    image, _ = data.scene()
    lossless = data.save(tmp_path / "train" / "a.png", image)
    panoptic = panoptic_records(
        tmp_path / "panoptic_train.json", tmp_path / "panoptic_train", tmp_path / "train"
    )[0]
    instance = load_coco_json(
        str(tmp_path / "instances_train.json"), str(tmp_path / "train"), "mapper_test"
    )[0]
    MetadataCatalog.remove("mapper_test")
    semantic = {"sem_seg_file_name": str(tmp_path / "labels_train" / "a.png"), "image_id": "a"}
    found = {"panoptic": panoptic, "instance": instance, "semantic": semantic}
    for record in found.values():
        record["file_name"] = lossless
    return found


MOVES = {
    "none": [],
    "flip": [HFlipTransform(32)],
    "crop and pad": [CropTransform(1, 3, 20, 18), PadTransform(0, 0, 5, 9, 20, 18, 128, 255)],
    "quarter turn": [QuarterTurnTransform(24, 32, 1), HFlipTransform(24)],
    "resize": [T.ResizeTransform(24, 32, 48, 64, Image.NEAREST), CropTransform(4, 2, 40, 40)],
}
# Classes and grey values of the scene's segments; the ground is no instance.
SHADES = {0: 200, 1: 120, 2: 40}


@pytest.mark.parametrize(
    ("task", "classes"), [("panoptic", [0, 1, 2]), ("semantic", [0, 1, 2]), ("instance", [0, 1])]
)
@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES.keys())
def test_masks_move_with_the_image(records, task, classes, moves):
    output = mapper(task, moves)(records[task])
    instances = output["instances"]
    assert output["image"].dtype == torch.uint8
    assert instances.image_size == tuple(output["image"].shape[1:])
    assert sorted(instances.gt_classes.tolist()) == classes
    for label, mask in zip(instances.gt_classes, instances.gt_masks.tensor, strict=True):
        assert torch.equal(mask, output["image"][0] == SHADES[int(label)])


def test_output_follows_the_contract(records):
    record = copy.deepcopy(records["panoptic"])
    output = mapper("panoptic", [CropTransform(0, 0, 10, 12)])(record)
    assert record == records["panoptic"]
    assert set(output) == {"file_name", "image_id", "height", "width", "image", "instances"}
    assert (output["height"], output["width"], output["image_id"]) == (24, 32, 5)
    instances = output["instances"]
    assert instances.gt_classes.dtype == torch.int64
    assert isinstance(instances.gt_masks, BitMasks)
    assert box_table(instances) == {1: [3, 2, 10, 9], 2: [0, 0, 10, 12]}  # the box is cropped away


def test_boxes_equal_detectron2s():
    masks = torch.rand(20, 13, 17) > 0.97
    masks[torch.arange(20), torch.randint(13, (20,)), torch.randint(17, (20,))] = True
    assert torch.equal(mask_boxes(masks), BitMasks(masks).get_bounding_boxes().tensor)
    assert mask_boxes(masks[:0]).shape == (0, 4)


def test_single_pixel_mask_survives(tmp_path, data):
    ids = np.zeros(data.size, np.uint32)
    ids[23, 31] = 2**24 - 1
    record = {
        "file_name": data.save(tmp_path / "a.png", data.scene()[0]),
        "pan_seg_file_name": data.save(tmp_path / "ids.png", data.id_image(ids)),
        "segments_info": [{"id": 2**24 - 1, "category_id": 1}],
    }
    instances = mapper("panoptic")(record)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[31, 23, 32, 24]]


@pytest.mark.parametrize("count", [254, 255, 256, 600])
def test_more_segments_than_a_byte_counts(tmp_path, data, count):
    ids = np.zeros((30, 40), np.uint32)
    ids.flat[:count] = np.random.default_rng(0).permutation(count) * 1000 + 1
    record = {
        "file_name": data.save(tmp_path / "a.png", np.zeros((30, 40, 3), np.uint8)),
        "pan_seg_file_name": data.save(tmp_path / "ids.png", data.id_image(ids)),
        "segments_info": [{"id": i * 1000 + 1, "category_id": i % 3} for i in range(count)],
    }
    pad = PadTransform(0, 0, 3, 2, 40, 30, 128, 255)
    instances = mapper("panoptic", [HFlipTransform(40), pad])(record)["instances"]
    assert len(instances) == count
    flipped = torch.from_numpy(ids.astype(np.int64)).flip(1)
    masks = instances.gt_masks.tensor
    for i in (0, 1, count - 1):
        assert instances.gt_classes[i] == i % 3
        assert torch.equal(masks[i, :30, :40], flipped == i * 1000 + 1)
    assert not masks[:, 30:].any()
    assert not masks[:, :, 40:].any()


@pytest.mark.parametrize("kind", ["crowd", "no annotation", "void", "all cropped"])
def test_images_may_end_up_without_segments(records, tmp_path, data, kind):
    record, moves = copy.deepcopy(records["panoptic"]), []
    if kind == "crowd":
        for segment in record["segments_info"]:
            segment["iscrowd"] = 1
    elif kind == "all cropped":
        moves = [CropTransform(30, 0, 2, 24)]
    else:
        record["segments_info"] = []
        del record["pan_seg_file_name"]
        if kind == "void":
            void = np.zeros((*data.size, 3), np.uint8)
            record["pan_seg_file_name"] = data.save(tmp_path / "void.png", void)
    instances = mapper("panoptic", moves)(record)["instances"]
    assert len(instances) == 0
    assert instances.gt_masks.tensor.shape == (0, *instances.image_size)
    assert instances.gt_boxes.tensor.shape == (0, 4)


def test_instances_without_annotations(records):
    record = records["instance"] | {"annotations": []}
    assert len(mapper("instance")(record)["instances"]) == 0


def test_instances_may_overlap_in_any_number(records, data):
    record = copy.deepcopy(records["instance"])
    record["annotations"] = [record["annotations"][1]] * 9 + [record["annotations"][0]]
    pad = PadTransform(0, 0, 3, 2, 32, 24, 128, 255)
    masks = mapper("instance", [pad])(record)["instances"].gt_masks.tensor
    wanted = torch.zeros(26, 35, dtype=torch.bool)
    wanted[:24, :32] = torch.from_numpy(data.scene()[1].astype(np.int64)) == 9
    assert all(torch.equal(mask, wanted) for mask in masks[:9])
    assert masks[9].sum() == 63


def test_instances_that_are_cropped_away_are_dropped(records):
    instances = mapper("instance", [CropTransform(0, 0, 12, 10)])(records["instance"])["instances"]
    assert instances.gt_classes.tolist() == [1]
    assert instances.gt_boxes.tensor.tolist() == [[3, 2, 12, 9]]


def whole_boxes(record):
    """The record with the boxes of its shapes, without the shapes."""
    boxes = {0: [14, 10, 15, 10], 1: [3, 2, 9, 7]}
    record = copy.deepcopy(record)
    for annotation in record["annotations"]:
        annotation["bbox"] = boxes[annotation["category_id"]]
        del annotation["segmentation"]
    return record


@pytest.mark.parametrize("kind", ["panoptic", "instance"])
@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES.keys())
def test_boxes_are_those_of_the_masks_wherever_they_move(records, kind, moves):
    with_masks = mapper(kind, moves)(records[kind])["instances"]
    record = records[kind] if kind == "panoptic" else whole_boxes(records[kind])
    instances = mapper("box", moves)(record)["instances"]
    assert set(instances.get_fields()) == {"gt_classes", "gt_boxes"}
    assert instances.image_size == with_masks.image_size
    assert instances.gt_classes.dtype == torch.int64
    assert instances.gt_boxes.tensor.dtype == torch.float32
    assert box_table(instances) == box_table(with_masks)


def test_boxes_are_cut_to_the_image_and_the_crop(records):
    record = copy.deepcopy(records["instance"])
    boxes = [[-4, 20, 10, 10], [30, 3, 9, 4], [12, 5, 6, 0.5], [3, 7, 0, 5], [40, 2, 3, 3]]
    first = record["annotations"][0]
    record["annotations"] = [{**first, "bbox": box} for box in boxes]
    found = mapper("box")(record)["instances"].gt_boxes.tensor.tolist()
    assert found == [[0, 20, 6, 24], [30, 3, 32, 7], [12, 5, 18, 5.5]]
    pad = PadTransform(5, 0, 8, 9, 32, 24, 128, 255)  # which shows nothing more of them
    padded = mapper("box", [pad])(record)["instances"].gt_boxes.tensor.tolist()
    assert padded == [[x + 5, y, right + 5, bottom] for x, y, right, bottom in found]
    cropped = mapper("box", [CropTransform(0, 0, 12, 24)])(record)["instances"]
    assert cropped.gt_boxes.tensor.tolist() == [[0, 20, 6, 24]]


@pytest.mark.parametrize("kind", ["panoptic", "instance"])
def test_no_boxes(records, kind):
    emptied = {"annotations": [], "segments_info": [], "pan_seg_file_name": None}
    record = {key: emptied.get(key, value) for key, value in records[kind].items()}
    instances = mapper("box", MOVES["resize"])(record)["instances"]
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.image_size == (40, 40)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"category_id": 3}, "category id 3"),
        ({"bbox": None}, "no 'bbox' of four numbers, but None"),
        ({"bbox": [1, 2, 3]}, r"but \[1, 2, 3\]"),
        ({"bbox_mode": None}, "'bbox_mode' None, none of .*'XYXY_ABS', 'XYWH_ABS'"),
    ],
)
def test_box_errors_name_the_file(records, change, words):
    record = copy.deepcopy(records["instance"])
    record["annotations"][0].update(change)
    with pytest.raises(ValueError, match=words) as caught:
        mapper("box")(record)
    assert record["file_name"] in str(caught.value)


def test_semantic_ignore_label_may_be_any_byte(tmp_path, data):
    label = data.semantic_label()
    label[label == 255] = 1
    record = {
        "file_name": data.save(tmp_path / "a.png", data.scene()[0]),
        "sem_seg_file_name": data.save(tmp_path / "label.png", label),
    }
    instances = mapper("semantic", ignore_label=1)(record)["instances"]
    assert instances.gt_classes.tolist() == [0, 2]


def test_palette_labels_are_indices(tmp_path, data):
    label = Image.fromarray(data.semantic_label())
    label.putpalette(list(range(255, -1, -1)) * 3)
    label.save(tmp_path / "label.png")
    record = {
        "file_name": data.save(tmp_path / "a.png", data.scene()[0]),
        "sem_seg_file_name": str(tmp_path / "label.png"),
    }
    assert Image.open(record["sem_seg_file_name"]).mode == "P"
    assert mapper("semantic")(record)["instances"].gt_classes.tolist() == [0, 1, 2]


def test_exif_orientation_turns_the_image(tmp_path, data):
    image, _ = data.scene()
    sideways = Image.fromarray(np.ascontiguousarray(np.rot90(image)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    sideways.save(tmp_path / "turned.png", exif=exif)
    record = {
        "file_name": str(tmp_path / "turned.png"),
        "sem_seg_file_name": data.save(tmp_path / "label.png", data.semantic_label()),
    }
    output = mapper("semantic")(record)
    assert np.array_equal(output["image"].numpy().transpose(1, 2, 0), image)


def broken(record, change, tmp_path, data):
    """``record`` with one thing wrong, and the words that the message must have."""
    segments = record.get("segments_info")
    if change == "image missing":
        record["file_name"] = "/nowhere/a.jpg"
        return FileNotFoundError, ["image", "/nowhere/a.jpg"]
    if change == "image corrupt":
        path = tmp_path / "corrupt.jpg"
        path.write_bytes(b"no image")
        record["file_name"] = str(path)
        return ValueError, ["image", str(path)]
    if change == "image truncated":
        path = tmp_path / "short.png"
        path.write_bytes(Path(record["file_name"]).read_bytes()[:-60])
        record["file_name"] = str(path)
        return ValueError, ["image", str(path)]
    if change == "label missing":
        record["pan_seg_file_name"] = "/nowhere/a.png"
        return FileNotFoundError, ["panoptic PNG", "/nowhere/a.png"]
    if change == "label size":
        path = data.save(tmp_path / "small.png", np.zeros((20, 30, 3), np.uint8))
        record["pan_seg_file_name"] = path
        return ValueError, ["size mismatch", record["file_name"], path, "32x24", "30x20"]
    if change == "image size":
        record["width"] = 33
        return ValueError, [record["file_name"], "33"]
    if change == "category":
        segments[1]["category_id"] = 3
        return ValueError, ["300", record["pan_seg_file_name"], "category id 3", "NUM_CLASSES"]
    if change == "unlisted id":
        del segments[0]
        return ValueError, [record["pan_seg_file_name"], "70000", "not list"]
    if change == "absent id":
        segments.append({"id": 12, "category_id": 1})
        return ValueError, [record["pan_seg_file_name"], "12", "no pixel"]
    del record["pan_seg_file_name"]
    return ValueError, [record["file_name"], "no panoptic PNG"]


@pytest.mark.parametrize(
    "change",
    [
        "image missing",
        "image corrupt",
        "image truncated",
        "label missing",
        "label size",
        "image size",
        "category",
        "unlisted id",
        "absent id",
        "no PNG",
    ],
)
def test_panoptic_errors_name_the_file(records, tmp_path, data, change):
    record = copy.deepcopy(records["panoptic"])
    error, words = broken(record, change, tmp_path, data)
    with pytest.raises(error) as caught:
        mapper("panoptic")(record)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((24, 32), 3, np.uint8), ["class ids [3]", "3 classes", "ignore label 255"]),
        (np.full((24, 32, 3), 1, np.uint8), ["one channel"]),
        (np.full((24, 30), 1, np.uint8), ["size mismatch", "32x24", "30x24"]),
        (np.full((24, 32), 300, np.uint16), ["class ids [300]"]),
    ],
)
def test_semantic_errors_name_the_file(tmp_path, data, pixels, words):
    record = {
        "file_name": data.save(tmp_path / "a.png", data.scene()[0]),
        "sem_seg_file_name": data.save(tmp_path / "label.png", pixels),
    }
    with pytest.raises(ValueError, match=r"label\.png") as caught:
        mapper("semantic")(record)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"category_id": 3}, "category id 3"),
        ({"segmentation": None}, "no valid polygon"),
        ({"segmentation": [[1, 2, 3, 4]]}, "no valid polygon"),
        ({"segmentation": {"size": [3, 4], "counts": [12]}}, "size mismatch"),
    ],
)
def test_instance_errors_name_the_file(records, change, words):
    record = copy.deepcopy(records["instance"])
    record["annotations"][0].update(change)
    with pytest.raises(ValueError, match=words) as caught:
        mapper("instance")(record)
    assert record["file_name"] in str(caught.value)


@pytest.mark.parametrize(
    ("task", "other"),
    [
        ("panoptic", "instance"),
        ("instance", "semantic"),
        ("semantic", "panoptic"),
        ("box", "semantic"),
    ],
)
def test_annotations_of_another_kind_are_refused(records, task, other):
    with pytest.raises(ValueError, match=r"INPUT\.ANNOTATIONS"):
        mapper(task)(records[other])


def test_from_config(cfg, records):
    cfg.INPUT.LSJ.ENABLED, cfg.INPUT.LSJ.IMAGE_SIZE = True, 40
    output = MaskTransformerMapper(cfg)(records["panoptic"])
    assert output["image"].shape == (3, 40, 40)
    assert output["instances"].image_size == (40, 40)
    cfg.INPUT.MIN_SIZE_TEST = 48
    tested = MaskTransformerMapper(cfg, is_train=False)(records["panoptic"])
    assert tested["image"].shape == (3, 48, 64)
    assert "instances" not in tested


def test_from_config_errors(cfg):
    cfg.INPUT.ANNOTATIONS = "boxes"
    with pytest.raises(ValueError, match=r"INPUT\.ANNOTATIONS"):
        MaskTransformerMapper(cfg)
    with pytest.raises(ValueError, match="at most 255 classes"):
        mapper("semantic", num_classes=256)
    MetadataCatalog.get("one").ignore_label, MetadataCatalog.get("two").ignore_label = 255, 0
    cfg.INPUT.ANNOTATIONS, cfg.DATASETS.TRAIN = "semantic", ("one", "two")
    with pytest.raises(ValueError, match="different ignore labels"):
        MaskTransformerMapper(cfg)
    MetadataCatalog.remove("one")
    MetadataCatalog.remove("two")


@pytest.mark.parametrize(
    ("folder", "task"),
    [
        ("nuclei", "panoptic"),
        ("coco_panoptic_mini", "panoptic"),
        ("coco_instances_mini", "instance"),
        ("camvid", "semantic"),
    ],
)
def test_real_data(cfg, folder, task, shared):
    from detectron2.data import DatasetCatalog

    from mask_transformers.data.datasets import use_folder

    use_folder(cfg, shared / "data" / folder, task)
    cfg.INPUT.LSJ.ENABLED, cfg.INPUT.LSJ.IMAGE_SIZE = True, 128
    mapped = MaskTransformerMapper(cfg)
    for record in DatasetCatalog.get(cfg.DATASETS.TEST[0])[:5]:
        output = mapped(record)
        assert output["image"].shape == (3, 128, 128)
        assert output["instances"].gt_masks.tensor.flatten(1).any(1).all()
