import pickle

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from fvcore.transforms.transform import CropTransform

from mask_transformers.data import MaskTransformerMapper
from mask_transformers.data.copy_paste import (
    PARTNER,
    PartneredRecords,
    check_copy_paste,
    draw_segments,
    partnered_records,
    paste_segments,
)
from mask_transformers.data.datasets.records import panoptic_records
from mask_transformers.data.target_instances import mask_instances

ALL = np.ones(9, bool)
# Of the scene: box and disc are things, the ground is stuff.
THINGS = {0, 1}
SHADES = {0: 200, 1: 120, 2: 40}


def picture(shade, labels, *windows, size=(4, 6)):
    """A grey image and its instances, whose masks are windows of rows and columns."""
    masks = np.zeros((len(windows), *size), bool)
    for mask, (rows, columns) in zip(masks, windows, strict=True):
        mask[rows, columns] = True
    image = torch.full((3, *size), shade, dtype=torch.uint8)
    return image, mask_instances(np.asarray(labels, np.int64), masks)


def cells(instances):
    """Class and number of pixels of every mask."""
    areas = instances.gt_masks.tensor.sum((1, 2)).tolist()
    return list(zip(instances.gt_classes.tolist(), areas, strict=True))


LEFT, RIGHT, ALL_COLUMNS = slice(0, 3), slice(3, 6), slice(0, 6)
ROWS = slice(0, 4)


def test_what_is_covered_vanishes_and_what_is_left_remains():
    below = picture(10, [0, 1, 2], (ROWS, LEFT), (slice(0, 1), RIGHT), (slice(1, 4), RIGHT))
    above = picture(99, [1, 0], (ROWS, slice(0, 2)), (slice(0, 1), slice(2, 6)))
    image, instances = paste_segments(below, above, ALL[:2], THINGS)
    # The disc is gone; two things of one class are two.
    assert cells(instances) == [(0, 3), (2, 9), (1, 8), (0, 4)]
    pasted = above[1].gt_masks.tensor.any(0)
    assert (image[:, pasted] == 99).all()
    assert (image[:, ~pasted] == 10).all()
    assert instances.gt_boxes.tensor.tolist()[0] == [2, 1, 3, 4]
    assert not (instances.gt_masks.tensor.sum(0) > 1).any()
    # The images that went in are as they were.
    assert (below[0] == 10).all()
    assert cells(below[1]) == [(0, 12), (1, 3), (2, 9)]


def test_only_chosen_segments_are_pasted():
    below, above = picture(10, [0], (ROWS, LEFT)), picture(99, [1, 0], (ROWS, LEFT), (ROWS, RIGHT))
    image, instances = paste_segments(below, above, np.array([False, True]), THINGS)
    assert cells(instances) == [(0, 12), (0, 12)]
    assert (image[:, :, LEFT] == 10).all()
    assert (image[:, :, RIGHT] == 99).all()
    same, unchanged = paste_segments(below, above, np.array([False, False]), THINGS)
    assert torch.equal(same, below[0])
    assert cells(unchanged) == [(0, 12)]


@pytest.mark.parametrize("things", [THINGS, None])
def test_stuff_of_one_class_becomes_one_segment(things):
    below = picture(10, [2, 0], (ROWS, slice(0, 2)), (ROWS, slice(2, 4)))
    above = picture(99, [2, 0], (slice(0, 2), slice(4, 6)), (slice(2, 4), slice(4, 6)))
    _, instances = paste_segments(below, above, ALL[:2], things)
    apart = [(2, 8), (0, 8), (2, 4), (0, 4)]
    assert cells(instances) == (apart if things is None else [(2, 12), (0, 8), (0, 4)])


def test_stuff_that_is_covered_by_itself_stays():
    below, above = picture(10, [2], (ROWS, LEFT)), picture(99, [2], (ROWS, ALL_COLUMNS))
    _, instances = paste_segments(below, above, ALL[:1], THINGS)
    assert cells(instances) == [(2, 24)]


@pytest.mark.parametrize("counts", [(0, 1), (1, 0), (0, 0)])
def test_images_without_segments(counts):
    below, above = (
        picture(shade, [0] * n, *[(ROWS, LEFT)] * n)
        for shade, n in zip((1, 2), counts, strict=True)
    )
    image, instances = paste_segments(below, above, ALL[: counts[1]], THINGS)
    assert len(instances) == max(counts)
    assert instances.gt_masks.tensor.shape == (max(counts), 4, 6)
    assert int(image.max()) == (2 if counts[1] else 1)


def test_images_of_two_sizes_are_refused():
    below, above = picture(1, [0], (ROWS, LEFT)), picture(2, [0], (ROWS, LEFT), size=(4, 7))
    with pytest.raises(ValueError, match=r"INPUT\.COPY_PASTE.*\(4, 6\) and \(4, 7\)"):
        paste_segments(below, above, ALL[:1], THINGS)


def test_a_segment_is_drawn_as_often_as_not():
    np.random.seed(0)
    drawn = np.stack([draw_segments(3) for _ in range(400)])
    assert drawn.dtype == bool
    assert (abs(drawn.mean(0) - 0.5) < 0.1).all()
    assert len({tuple(row.tolist()) for row in drawn}) == 8
    assert draw_segments(0).shape == (0,)


@pytest.fixture
def records(tmp_path, data):
    """The scene and an image without annotations, as records."""
    data.write_folder(tmp_path, "panoptic")
    path = tmp_path / "train" / "a.png"
    image = data.save(path, data.scene()[0])
    found = panoptic_records(
        tmp_path / "panoptic_train.json", tmp_path / "panoptic_train", tmp_path / "train"
    )
    found[0]["file_name"] = image
    return found


def mapper(*moves, annotations="panoptic"):
    return MaskTransformerMapper(
        annotations=annotations, augmentations=list(moves), num_classes=3, thing_classes=THINGS
    )


def test_the_mapper_pastes_from_the_partner(records, monkeypatch):
    monkeypatch.setattr("mask_transformers.data.mapper.draw_segments", lambda count: ALL[:count])
    plain, empty = records[0], records[1]
    output = mapper()({**empty, PARTNER: plain})
    assert output["image_id"] == empty["image_id"]
    assert "paste_from" not in output
    assert sorted(output["instances"].gt_classes.tolist()) == [0, 1, 2]
    instances = output["instances"]
    for label, mask in zip(instances.gt_classes.tolist(), instances.gt_masks.tensor, strict=True):
        assert (output["image"][0, mask] == SHADES[label]).all()
    # All segments on themselves: things twice, of which the lower ones are covered.
    assert cells(mapper()({**plain, PARTNER: plain})["instances"]) != []
    assert len(mapper()({**plain, PARTNER: plain})["instances"]) == 3


class DrawnCrop(T.Augmentation):
    """Eight columns from a random one on."""

    def get_transform(self, image):
        return CropTransform(int(np.random.randint(20)), 0, 8, 24)


def test_image_and_partner_are_augmented_apart_and_by_the_seed(records):
    record = {**records[0], PARTNER: records[0]}
    mapped = mapper(DrawnCrop())

    def draw(seed):
        np.random.seed(seed)
        return mapped(record)

    outputs = [draw(seed) for seed in range(12)]
    for seed, output in enumerate(outputs):
        again = draw(seed)
        assert torch.equal(again["image"], output["image"])
        assert torch.equal(again["instances"].gt_masks.tensor, output["instances"].gt_masks.tensor)
        instances = output["instances"]
        pairs = zip(instances.gt_classes.tolist(), instances.gt_masks.tensor, strict=True)
        assert all((output["image"][0, mask] == SHADES[label]).all() for label, mask in pairs)
        assert instances.gt_classes.tolist().count(2) <= 1
    assert len({output["image"].numpy().tobytes() for output in outputs}) > 6
    # Two views of one image, so more things than it has.
    assert max(len(output["instances"]) for output in outputs) > 3


def test_instances_are_pasted_too(records):
    low = {"category_id": 1, "segmentation": [[3, 2, 12, 2, 12, 9, 3, 9]]}
    high = {"category_id": 0, "segmentation": [[8, 2, 20, 2, 20, 9, 8, 9]]}
    record = {"file_name": records[0]["file_name"], "annotations": [low]}
    mapped, found = mapper(annotations="instance"), []
    for seed in range(8):
        np.random.seed(seed)
        output = mapped({**record, PARTNER: {**record, "annotations": [high]}})
        found.append(tuple(cells(output["instances"])))
    assert set(found) == {((1, 63),), ((1, 35), (0, 84))}


def test_semantic_labels_keep_one_segment_a_class(tmp_path, data):
    record = {
        "file_name": data.save(tmp_path / "a.png", data.scene()[0]),
        "sem_seg_file_name": data.save(tmp_path / "label.png", data.semantic_label()),
    }
    mapped = mapper(DrawnCrop(), annotations="semantic")
    for seed in range(8):
        np.random.seed(seed)
        labels = mapped({**record, PARTNER: record})["instances"].gt_classes.tolist()
        assert len(set(labels)) == len(labels)


def test_a_broken_partner_is_named(records):
    broken = {**records[0], "pan_seg_file_name": "/nowhere/a.png"}
    with pytest.raises(FileNotFoundError, match=r"/nowhere/a\.png"):
        mapper()({**records[1], PARTNER: broken})


def test_nothing_is_pasted_in_a_test(records):
    tested = MaskTransformerMapper(False, annotations="panoptic", augmentations=[], num_classes=3)
    output = tested({**records[0], PARTNER: records[1]})
    assert "instances" not in output
    assert (output["image"][0, 2:9, 3:12] == SHADES[1]).all()


def test_partners_come_as_often_as_asked_and_from_all_records():
    source = [{"image_id": i} for i in range(5)]
    np.random.seed(0)
    assert all(PARTNER not in record for record in PartneredRecords(source, 0.0))
    always = PartneredRecords(source, 1.0)
    assert len(always) == 5
    seen = {always[0][PARTNER]["image_id"] for _ in range(100)}
    assert seen == set(range(5))
    assert [record["image_id"] for record in always] == list(range(5))
    half = PartneredRecords(source, 0.5)
    assert 60 < sum(PARTNER in half[1] for _ in range(200)) < 140
    assert source == [{"image_id": i} for i in range(5)]


def test_partners_follow_the_seed_and_go_to_other_processes():
    partnered = PartneredRecords([{"image_id": i} for i in range(50)], 0.5)
    drawn = []
    for records in (partnered, partnered, pickle.loads(pickle.dumps(partnered))):
        np.random.seed(3)
        drawn.append([records[i] for i in range(50)])
    assert drawn[0] == drawn[1] == drawn[2]


def test_records_of_a_config(cfg, records):
    DatasetCatalog.register("pasted_train", lambda: records)
    MetadataCatalog.get("pasted_train")  # as registered data sets have it
    cfg.DATASETS.TRAIN = ("pasted_train",)
    assert partnered_records(cfg) is None
    cfg.INPUT.COPY_PASTE = 1.0
    partnered = partnered_records(cfg)
    assert [r["file_name"] for r in partnered] == [r["file_name"] for r in records]


@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan")])
def test_impossible_probabilities_are_refused(cfg, probability):
    cfg.INPUT.COPY_PASTE = probability
    with pytest.raises(ValueError, match=r"INPUT\.COPY_PASTE must be in \[0, 1\]"):
        MaskTransformerMapper(cfg)
    MaskTransformerMapper(cfg, is_train=False)


def test_what_copy_paste_needs(cfg):
    cfg.INPUT.COPY_PASTE, crop = 0.5, cfg.INPUT.CROP
    with pytest.raises(ValueError, match=r"images of one size: INPUT\.LSJ\.ENABLED"):
        check_copy_paste(cfg)
    crop.ENABLED, crop.TYPE = True, "relative"
    with pytest.raises(ValueError, match="images of one size"):
        check_copy_paste(cfg)
    crop.TYPE, crop.BEFORE_RESIZE = "absolute", True
    with pytest.raises(ValueError, match="images of one size"):
        check_copy_paste(cfg)
    crop.BEFORE_RESIZE = False
    check_copy_paste(cfg)
    crop.ENABLED, cfg.INPUT.LSJ.ENABLED = False, True
    check_copy_paste(cfg)
    cfg.INPUT.ANNOTATIONS = "box"
    with pytest.raises(ValueError, match=r"INPUT\.ANNOTATIONS is 'box'"):
        check_copy_paste(cfg)
