import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from mask_transformers.visualization import draw_ground_truth, draw_prediction, side_by_side
from mask_transformers.visualization.overlay import READABLE_SIDE, class_color, complete_metadata
from mask_transformers.visualization.results import (
    draw_boxes,
    draw_instances,
    draw_panoptic,
    draw_semantic,
)

SIZE = (READABLE_SIDE, 200)  # large enough not to be enlarged
GREY = 128


@pytest.fixture
def image():
    return np.full((*SIZE, 3), GREY, np.uint8)


@pytest.fixture
def metadata():
    names = ["cat", "dog", "sky"]
    return Metadata(
        name="drawn",
        thing_classes=names,
        stuff_classes=names,
        thing_colors=[(255, 0, 0), (0, 255, 0), (0, 0, 255)],
        stuff_colors=[(255, 0, 0), (0, 255, 0), (0, 0, 255)],
        thing_dataset_id_to_contiguous_id={7: 0, 9: 1},
    )


def instances(masks, scores, classes):
    result = Instances(SIZE)
    result.pred_masks = torch.as_tensor(masks)
    result.scores = torch.tensor(scores)
    result.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return result


def detections(boxes, scores, classes, size=SIZE):
    """What a detector without masks returns; boxes are x0, y0, x1, y1."""
    result = Instances(size)
    result.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    result.scores = torch.tensor(scores)
    result.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return result


def box_mask(top, bottom, left, right):
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def touched(drawn):
    return (drawn != GREY).any(-1)


def test_panoptic_segments_get_the_colours_of_their_classes(image, metadata):
    ids = np.zeros(SIZE, np.int32)
    ids[:100], ids[200:300, 50:150] = 3, 8
    segments = [
        {"id": 3, "category_id": 2, "isthing": False},
        {"id": 8, "category_id": 0, "isthing": True},
    ]
    drawn = draw_prediction(image, {"panoptic_seg": (torch.from_numpy(ids), segments)}, metadata)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    np.testing.assert_allclose(drawn[20, 20], [64, 64, 192], atol=3)
    red, green, blue = drawn[205, 55].astype(int)
    assert red > max(green, blue) + 50
    assert not touched(drawn)[110:190].any(), "pixels of no segment stay as they are"


def test_drawing_twice_gives_the_same_picture(image, metadata):
    output = {"instances": instances([box_mask(10, 90, 10, 90)], [0.9], [0])}
    first, second = (draw_prediction(image, output, metadata) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_instances_below_the_threshold_are_left_out(image, metadata):
    masks = np.stack([box_mask(10, 90, 10, 90), box_mask(200, 280, 10, 90)])
    output = {"instances": instances(masks, [0.9, 0.4], [0, 1])}
    assert not touched(draw_prediction(image, output, metadata))[195:].any()
    assert touched(draw_prediction(image, output, metadata, score_threshold=0.3))[240, 15]


def assert_frame(drawn, left, top, right, bottom):
    """A line all around the box and nothing inside, but for a name at a corner."""
    seen = touched(drawn)
    middle_x, middle_y = (left + right) // 2, (top + bottom) // 2
    for x in (left, right):
        assert seen[middle_y, x - 3 : x + 3].any()
    for y in (top, bottom):
        assert seen[y - 3 : y + 3, middle_x + 20].any()
    assert not seen[middle_y : bottom - 5, left + 5 : right - 5].any()
    assert not seen[bottom + 40 :].any()


def test_instances_without_masks_are_drawn_by_their_boxes(image, metadata):
    boxes = [[20.0, 60.0, 180.0, 150.0], [20.0, 210.0, 180.0, 300.0]]
    output = {"instances": detections(boxes, [0.9, 0.4], [1, 0])}
    drawn = draw_prediction(image, output, metadata)
    assert_frame(drawn, 20, 60, 180, 150)
    red, green, blue = drawn[100, 180].astype(int)
    assert green > max(red, blue), "a dog is green"
    np.testing.assert_array_equal(draw_prediction(image, output, metadata, "box"), drawn)
    assert touched(draw_prediction(image, output, metadata, score_threshold=0.3))[200:].any()


def test_boxes_are_drawn_alone_where_they_are_asked_for(image, metadata):
    found = instances([box_mask(60, 150, 20, 180)], [0.9], [0])
    found.pred_boxes = Boxes(torch.tensor([[20.0, 60.0, 180.0, 150.0]]))
    output = {"instances": found}
    assert_frame(draw_prediction(image, output, metadata, "box"), 20, 60, 180, 150)
    assert touched(draw_prediction(image, output, metadata))[60:150, 20:180].all()


def test_boxes_are_enlarged_with_the_image():
    small = np.full((READABLE_SIDE // 4, READABLE_SIDE // 4, 3), GREY, np.uint8)
    drawn = draw_boxes(small, [[10, 20, 70, 60]], [0])
    assert drawn.shape == (READABLE_SIDE, READABLE_SIDE, 3)
    assert_frame(drawn, 40, 80, 280, 240)


def test_boxes_are_cut_to_the_image(image):
    """Lines outside would not be seen, and names would be lost with them."""
    inside = draw_boxes(image, [[0, 40, 100, SIZE[0]]], [0])
    beyond = draw_boxes(image, [[-500, 40, 100, 2000]], [0])
    np.testing.assert_array_equal(inside, beyond)


def test_a_hole_in_an_instance_stays_a_hole(image):
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    radius = np.hypot(rows - 150, columns - 100)
    ring = (radius < 90) & (radius > 60)
    drawn = touched(draw_instances(image, ring[None], [0]))
    assert drawn[ring].mean() > 0.9
    # A pixel off the middle: that is where the name may stand.
    assert not drawn[150 - 45, 100]


def test_the_smaller_of_overlapping_instances_is_on_top(image, metadata):
    masks = np.stack([box_mask(50, 100, 50, 100), box_mask(10, 300, 10, 190)])
    drawn = draw_instances(image, masks, [0, 1], metadata).astype(int)
    assert drawn[55, 95, 0] > drawn[55, 95, 1]
    assert drawn[290, 180, 1] > drawn[290, 180, 0]


def test_semantic_scores_are_drawn_by_their_best_class(image, metadata):
    scores = torch.zeros(3, *SIZE)
    scores[1, :160], scores[2, 160:] = 1, 1
    drawn = draw_prediction(image, {"sem_seg": scores}, metadata)
    np.testing.assert_allclose(drawn[10, 10], [64, 192, 64], atol=3)
    np.testing.assert_allclose(drawn[-10, 10], [64, 64, 192], atol=3)


def test_ignored_pixels_are_left_out(image, metadata):
    labels = np.full(SIZE, 255, np.uint8)
    labels[:100] = 0
    for known in (metadata, None):
        assert not touched(draw_semantic(image, labels, known))[110:].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (400, 2), (2, 400), (400, 1), (7, 13)])
def test_images_of_any_size(size):
    image = np.zeros((*size, 3), np.uint8)
    whole = np.ones(size, int)
    segments = [{"id": 1, "category_id": 0, "isthing": True}]
    for drawn in (
        draw_panoptic(image, whole, segments),
        draw_semantic(image, whole),
        draw_instances(image, whole[None].astype(np.uint8), [0]),
        draw_boxes(image, [[0, 0, size[1], size[0]]], [0]),
    ):
        assert max(drawn.shape) >= READABLE_SIDE
        assert drawn.shape[0] / size[0] == drawn.shape[1] / size[1]
        assert drawn.any()


def test_nothing_found_gives_the_image(image, metadata):
    empty = {
        "panoptic_seg": (torch.zeros(SIZE, dtype=torch.int32), []),
        "instances": instances(np.zeros((0, *SIZE), bool), [], []),
    }
    for task in ("panoptic", "instance"):
        np.testing.assert_array_equal(draw_prediction(image, empty, metadata, task), image)
    nothing = {"instances": detections([], [], [])}
    np.testing.assert_array_equal(draw_prediction(image, nothing, metadata), image)
    record = {"file_name": "some.png", "annotations": []}
    for task in ("auto", "instance", "box"):
        truth = draw_ground_truth(record, metadata, task, image)
        np.testing.assert_array_equal(truth, image)


def test_hundreds_of_instances(image):
    masks = np.zeros((150, *SIZE), bool)
    for k in range(150):
        masks[k, 20 * (k // 10) : 20 * (k // 10) + 15, 20 * (k % 10) : 20 * (k % 10) + 15] = True
    drawn = touched(draw_instances(image, masks, [0] * 150, None, [0.9] * 150))
    assert drawn[masks.any(0)].all()
    # Names would have been drawn over the gaps.
    gap = ~masks.any(0)
    assert drawn[gap].mean() < 0.3


def test_missing_names_and_colours_are_made_up():
    known = Metadata(name="few", thing_classes=["cell"])
    completed = complete_metadata(known, 3)
    assert completed.thing_classes == ["cell", "class 1", "class 2"]
    assert completed.stuff_classes == completed.thing_classes
    assert completed.thing_colors == [class_color(k) for k in range(3)]
    assert len({class_color(k) for k in range(150)}) == 150
    assert known.as_dict() == {"name": "few", "thing_classes": ["cell"]}, "left as it was"


def write(path, array):
    Image.fromarray(array).save(path)
    return str(path)


def test_ground_truth_of_records(tmp_path, image, metadata):
    mask = box_mask(50, 150, 50, 150)
    ids = np.zeros((*SIZE, 3), np.uint8)
    ids[mask] = (1, 2, 0)  # 1 + 2 * 256
    labels = np.where(mask, 1, 255).astype(np.uint8)
    record = {"file_name": write(tmp_path / "image.png", image)}
    segment = {"id": 513, "category_id": 1, "isthing": True, "iscrowd": 0}
    polygon = {
        "category_id": 1,
        "bbox": [50, 50, 100, 100],
        "bbox_mode": BoxMode.XYWH_ABS,
        "segmentation": [[50, 50, 150, 50, 150, 150, 50, 150]],
    }
    kinds = [
        {"pan_seg_file_name": write(tmp_path / "ids.png", ids), "segments_info": [segment]},
        {"annotations": [polygon]},
        {"sem_seg_file_name": write(tmp_path / "labels.png", labels)},
    ]
    for kind in kinds:
        drawn = draw_ground_truth({**record, **kind}, metadata)
        assert drawn[60, 60, 1] > drawn[60, 60, 0], "a dog is green"
        assert not touched(drawn)[200:].any()


@pytest.mark.parametrize("mode", [BoxMode.XYWH_ABS, BoxMode.XYXY_ABS])
@pytest.mark.parametrize("segmentation", [{}, {"segmentation": None}, {"segmentation": []}])
def test_annotations_without_masks_are_drawn_by_their_boxes(image, metadata, mode, segmentation):
    box = [20, 60, 160, 90] if mode == BoxMode.XYWH_ABS else [20, 60, 180, 150]
    annotation = {"category_id": 1, "bbox": box, "bbox_mode": mode, **segmentation}
    record = {"file_name": "some.png", "annotations": [annotation]}
    drawn = draw_ground_truth(record, metadata, image=image)
    assert_frame(drawn, 20, 60, 180, 150)
    np.testing.assert_array_equal(draw_ground_truth(record, metadata, "box", image), drawn)


def test_boxes_of_annotations_with_masks(image, metadata):
    annotation = {"category_id": 1, "bbox": [20, 60, 160, 90], "bbox_mode": BoxMode.XYWH_ABS}
    bitmap = box_mask(60, 150, 20, 180).astype(np.uint8)
    record = {"file_name": "a", "annotations": [{**annotation, "segmentation": bitmap}]}
    assert_frame(draw_ground_truth(record, metadata, "box", image), 20, 60, 180, 150)
    assert touched(draw_ground_truth(record, metadata, image=image))[60:150, 20:180].all()
    # One box without a mask would be missing in a picture of masks.
    record["annotations"].append({**annotation, "bbox": [20, 200, 160, 90]})
    drawn = draw_ground_truth(record, metadata, image=image)
    assert_frame(drawn, 20, 200, 180, 290)


def test_wrong_boxes_are_named(image, metadata):
    output = {"instances": detections([[0, 0, 9, 9]], [0.9], [0])}
    with pytest.raises(ValueError, match=r"no instances with masks, needed to draw .*'instance'"):
        draw_prediction(image, output, metadata, "instance")
    masks = {"instances": instances([box_mask(0, 9, 0, 9)], [0.9], [0])}
    with pytest.raises(ValueError, match="no instances, needed to draw the task 'box'"):
        draw_prediction(image, masks, metadata, "box")
    other = {"instances": detections([[0, 0, 9, 9]], [0.9], [0], size=(5, 5))}
    with pytest.raises(ValueError, match=r"\(5, 5\)"):
        draw_prediction(image, other, metadata)
    box = {"category_id": 0, "bbox": [0, 0, 9, 9], "bbox_mode": BoxMode.XYXY_ABS}
    record = {"file_name": "some.png", "annotations": [box]}
    with pytest.raises(ValueError, match=r"some\.png has no annotations with masks"):
        draw_ground_truth(record, metadata, "instance", image)
    for wrong in ({"bbox": None}, {"bbox_mode": BoxMode.XYXY_REL}):
        record = {"file_name": "some.png", "annotations": [{**box, **wrong}]}
        with pytest.raises(ValueError, match=r"annotation of some\.png has .*bbox"):
            draw_ground_truth(record, metadata, image=image)


def test_wrong_arguments_are_named(image, metadata):
    scores = {"sem_seg": torch.zeros(3, 5, 5)}
    with pytest.raises(ValueError, match="panoptic_seg"):
        draw_prediction(image, scores, metadata, "panoptic")
    with pytest.raises(ValueError, match="panoptic_seg or instances or sem_seg"):
        draw_prediction(image, {}, metadata)
    with pytest.raises(ValueError, match="known: auto"):
        draw_prediction(image, scores, metadata, "boxes")
    with pytest.raises(ValueError, match=r"\(5, 5\)"):
        draw_prediction(image, scores, metadata)
    with pytest.raises(ValueError, match="uint8"):
        draw_semantic(image.astype(float), np.zeros(SIZE, int), metadata)
    with pytest.raises(ValueError, match=r"some\.png"):
        draw_ground_truth({"file_name": "some.png"}, metadata)
    broken = {"file_name": "some.png", "sem_seg_file_name": "labels.png"}
    with pytest.raises(FileNotFoundError, match=r"some\.png"):
        draw_ground_truth(broken, metadata)


def test_side_by_side_keeps_every_image():
    red, blue = (200, 0, 0), (0, 0, 200)  # unlike the titles, which are grey
    small, large = np.full((10, 20, 3), red, np.uint8), np.full((30, 40, 3), blue, np.uint8)
    picture = side_by_side([[small, large], [large, small]], ["one", "two"], gap=5)
    assert picture.shape == (24 + 30 + 30 + 15, 40 + 40 + 15, 3)
    assert (picture == red).all(-1).sum() == 2 * 200
    assert (picture == blue).all(-1).sum() == 2 * 1200
    for rows in ([], [[]], [[small], [small, large]]):
        with pytest.raises(ValueError, match="rows"):
            side_by_side(rows)
