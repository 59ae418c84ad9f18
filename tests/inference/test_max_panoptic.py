import numpy as np
import pytest
import torch

from mask_transformers.inference.max_panoptic import max_panoptic_inference

CLASSES, THINGS = 4, {0, 1}  # no-object is class 4
NO_LIMIT = {"thing_area": 0, "stuff_area": 0}
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


def test_a_thing_beside_stuff():
    ids, segments = max_panoptic_inference(
        _logits((3, 0.9), (1, 0.95)), _masks(RIGHT, LEFT), THINGS, **NO_LIMIT
    )
    assert segments == [
        {"id": 1, "isthing": True, "category_id": 1},
        {"id": 2, "isthing": False, "category_id": 3},
    ]
    assert ids.dtype == torch.int32
    assert (ids[LEFT] == 1).all()
    assert (ids[RIGHT] == 2).all()


def test_stuff_of_a_class_is_joined_and_things_are_not():
    for label, count in ((2, 1), (1, 2)):
        ids, segments = max_panoptic_inference(
            _logits((label, 0.9), (label, 0.9)), _masks(LEFT, RIGHT), THINGS, **NO_LIMIT
        )
        assert len(segments) == ids.max() == count
        assert (ids > 0).all()


def test_slots_that_are_not_sure_get_nothing():
    logits, masks = _logits((1, 0.69), (2, 0.9)), _masks(LEFT, RIGHT)
    ids, segments = max_panoptic_inference(logits, masks, THINGS, **NO_LIMIT)
    assert [segment["category_id"] for segment in segments] == [2]
    assert (ids[LEFT] == 0).all()
    ids, segments = max_panoptic_inference(logits, masks, THINGS, stuff_threshold=0.95)
    assert segments == []
    assert not ids.any()


def test_pixels_that_are_not_sure_stay_void():
    logits = _logits((1, 0.9), (2, 0.9), (0, 0.1))
    masks = torch.zeros(3, 1, 3)
    # Probabilities of the three slots in three pixels; the last slot is not sure of its class.
    wanted = [[0.45, 0.39, 0.42], [0.3, 0.31, 0.1], [0.25, 0.3, 0.48]]
    masks[:] = torch.tensor(wanted).log()[:, None]
    ids, _ = max_panoptic_inference(logits, masks, THINGS, **NO_LIMIT)
    assert ids.tolist() == [[1, 0, 1]]
    ids, _ = max_panoptic_inference(logits, masks, THINGS, pixel_threshold=0.43, **NO_LIMIT)
    assert ids.tolist() == [[1, 0, 0]]


@pytest.mark.parametrize(("size", "limit"), [((480, 640), 100), ((240, 320), 25)])
def test_area_limits_follow_the_size_of_the_image(size, limit):
    for enough in (False, True):
        pixels = limit if enough else limit - 1
        masks = torch.zeros(2, *size)
        masks[0, 0, :pixels] = masks[1, 0, pixels:] = masks[1, 1:] = 20.0
        _, segments = max_panoptic_inference(_logits((1, 0.9), (2, 0.9)), masks, THINGS)
        assert [s["category_id"] for s in segments] == ([1, 2] if enough else [2])


def test_small_stuff_is_left_out_by_the_sum_of_its_slots():
    masks = torch.zeros(3, 480, 640)
    masks[0, 0, :] = masks[1, 1, :] = masks[2, 3:] = 20.0  # twice 640 pixels of class 2
    logits = _logits((2, 0.9), (2, 0.9), (3, 0.9))
    _, segments = max_panoptic_inference(logits, masks, THINGS)
    assert [s["category_id"] for s in segments] == [3]
    masks[1, 2, :] = 20.0
    _, segments = max_panoptic_inference(logits, masks, THINGS)
    assert [s["category_id"] for s in segments] == [2, 3]
