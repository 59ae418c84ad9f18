import json

import numpy as np
import pytest
import torch

from mask_transformers.inference.kmax_panoptic import kmax_panoptic_inference, sure_classes

CLASSES, THINGS = 4, {0, 1}  # no-object is class 4
LEFT, RIGHT = np.s_[:, :5], np.s_[:, 5:]


def _logits(*sure):
    """Class logits (Q, K+1) for pairs of a class and its probability; the rest is no-object."""
    probabilities = torch.full((len(sure), CLASSES + 1), 1e-6)
    for row, (label, probability) in zip(probabilities, sure, strict=True):
        row[label], row[-1] = probability, 1 - probability
    return probabilities.log()


def _masks(*regions, size=(6, 10)):
    """Mask logits (Q, H, W), high in the given regions (slices)."""
    masks = torch.zeros(len(regions), *size)
    for mask, region in zip(masks, regions, strict=True):
        mask[region] = 20.0
    return masks


def test_a_class_is_the_best_one_beside_no_object():
    logits = _logits((0, 0.75), (3, 0.55), (1, 0.65), (2, 0.45), (0, 0.2))
    index, labels, scores = sure_classes(logits, THINGS, 0.7, 0.5)
    assert (index.tolist(), labels.tolist()) == ([0, 1], [0, 3])
    assert scores.tolist() == pytest.approx([0.75, 0.55], abs=1e-4)
    assert sure_classes(logits, THINGS, 0.1, 0.9)[0].tolist() == [0, 2, 4]


def test_a_thing_beside_stuff():
    ids, segments = kmax_panoptic_inference(
        _logits((1, 0.95), (3, 0.9)), _masks(LEFT, RIGHT), THINGS
    )
    assert segments == [
        {"id": 1, "isthing": True, "category_id": 1},
        {"id": 2, "isthing": False, "category_id": 3},
    ]
    assert ids.dtype == torch.int32
    assert (ids[LEFT] == 1).all()
    assert (ids[RIGHT] == 2).all()


def test_stuff_of_a_class_is_joined_and_things_are_not():
    masks = _masks(np.s_[:3, :5], np.s_[3:, :5], np.s_[:3, 5:], np.s_[3:, 5:])
    logits = _logits((2, 0.99), (0, 0.98), (2, 0.97), (0, 0.96))
    ids, segments = kmax_panoptic_inference(logits, masks, THINGS)
    assert [(s["id"], s["category_id"]) for s in segments] == [(1, 2), (2, 0), (3, 0)]
    assert (ids[:3] == 1).all()
    assert (ids[3:, 5:] == 3).all()


@pytest.mark.parametrize(("sure", "winner"), [(0.99, 1), (0.75, 0)])
def test_order_is_class_times_mean_probability_of_the_mask(sure, winner):
    masks = torch.tensor([0.45, 0.55]).log()[:, None, None].expand(2, 4, 5)
    logits = _logits((0, 0.95), (1, sure))
    ids, segments = kmax_panoptic_inference(logits, masks, THINGS)
    assert [s["category_id"] for s in segments] == [winner]
    assert (ids == 1).all()


def test_pixels_that_no_query_is_sure_of_are_void():
    masks = torch.zeros(4, 4, 5)  # a quarter for each
    masks[0, :2] = 20.0
    logits = _logits((0, 0.9), (4, 1.0), (4, 1.0), (4, 1.0))
    ids, segments = kmax_panoptic_inference(logits, masks, THINGS)
    assert len(segments) == 1
    assert (ids[:2] == 1).all()
    assert (ids[2:] == 0).all()
    ids, _ = kmax_panoptic_inference(logits, masks, THINGS, pixel_threshold=0.2)
    assert (ids == 1).all()


def test_a_pixel_belongs_to_queries_that_are_dropped_too():
    """Their share of the probability is not given to the others."""
    masks = torch.zeros(2, 4, 5)
    masks[1] = 3.0
    ids, segments = kmax_panoptic_inference(_logits((0, 0.9), (1, 0.3)), masks, THINGS)
    assert segments == []
    assert not ids.any()


@pytest.mark.parametrize(("threshold", "count"), [(0.59, 2), (0.6, 2), (0.61, 1)])
def test_a_mask_that_lost_too_much_is_dropped(threshold, count):
    masks = torch.full((2, 1, 7), -20.0)
    masks[0, :, :4] = masks[1, :, 2:] = 0.0  # they share two pixels; three of the second's are free
    logits = _logits((0, 0.99), (1, 0.75))
    ids, segments = kmax_panoptic_inference(logits, masks, THINGS, overlap_threshold=threshold)
    assert len(segments) == count
    assert ids[0].tolist() == [1, 1, 1, 1] + [2 if count == 2 else 0] * 3


def test_nothing_is_left():
    empty = torch.zeros(0, CLASSES + 1), torch.zeros(0, 4, 5)
    flat = _logits(*[(0, 0.9)] * 3), torch.zeros(3, 4, 5)  # sure of a class, but of no pixel
    for logits, masks in (empty, flat):
        ids, segments = kmax_panoptic_inference(logits, masks, THINGS)
        assert ids.shape == (4, 5)
        assert not ids.any()
        assert segments == []


def test_partition_is_that_of_the_official_code(shared):
    golden = np.load(shared / "parity/inference/kmax_deeplab.npz")
    ids, segments = kmax_panoptic_inference(
        torch.from_numpy(golden["pred_logits"]),
        torch.from_numpy(golden["pred_masks"]),
        set(range(int(golden["num_things"]))),
    )
    expected, found = golden["panoptic"], ids.numpy()
    wanted = {
        s["id"]: (s["category_id"], s["isthing"]) for s in json.loads(str(golden["segments"]))
    }
    pairs = set(zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len(set(found.ravel())) == len(set(expected.ravel()))
    described = {s["id"]: (s["category_id"], s["isthing"]) for s in segments}
    assert len(described) == len(wanted) > 3
    for mine, theirs in pairs:
        assert described.get(mine) == wanted.get(theirs)
