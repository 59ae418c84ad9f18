import json

import numpy as np
import torch

from mask_transformers.inference.panoptic import confident_queries, panoptic_inference

CLASSES, THINGS = 4, {0, 1}  # no-object is class 4


def _logits(*classes, confidence=20.0):
    """Class logits (Q, K+1) that are sure of the given classes."""
    logits = torch.zeros(len(classes), CLASSES + 1)
    logits[torch.arange(len(classes)), torch.tensor(classes)] = confidence
    return logits


def _masks(*regions, size=(6, 10), inside=10.0):
    """Mask logits (Q, H, W) that are sure of the given regions (slices)."""
    masks = torch.full((len(regions), *size), -10.0)
    for mask, region in zip(masks, regions, strict=True):
        mask[region] = inside
    return masks


LEFT, RIGHT = np.s_[:, :5], np.s_[:, 5:]


def test_a_thing_beside_stuff():
    ids, segments = panoptic_inference(_logits(1, 3), _masks(LEFT, RIGHT), THINGS)
    assert segments == [
        {"id": 1, "isthing": True, "category_id": 1},
        {"id": 2, "isthing": False, "category_id": 3},
    ]
    assert ids.dtype == torch.int32
    assert (ids[LEFT] == 1).all()
    assert (ids[RIGHT] == 2).all()


def test_two_things_of_a_class_stay_apart():
    _, segments = panoptic_inference(_logits(1, 1), _masks(LEFT, RIGHT), THINGS)
    assert [s["id"] for s in segments] == [1, 2]


def test_stuff_of_a_class_is_joined():
    logits, masks = _logits(2, 0, 2), _masks(LEFT, np.s_[:3, 5:], np.s_[3:, 5:])
    ids, segments = panoptic_inference(logits, masks, THINGS)
    assert [(s["id"], s["category_id"]) for s in segments] == [(1, 2), (2, 0)]
    assert (ids[LEFT] == 1).all()
    assert (ids[3:, 5:] == 1).all()
    assert (ids[:3, 5:] == 2).all()


def test_pixels_that_no_mask_covers_are_void():
    ids, segments = panoptic_inference(_logits(1), _masks(np.s_[1:3, 1:3]), THINGS)
    assert len(segments) == 1
    assert (ids == 1).sum() == 4
    assert (ids == 0).sum() == 56


def test_a_segment_that_lost_too_much_of_its_mask_is_dropped():
    # The sure query takes 4 of the 5 columns of the unsure one, which keeps 1/5 of its mask.
    logits = torch.cat([_logits(0), _logits(1, confidence=4.0)])
    masks = _masks(np.s_[:, :4], np.s_[:, :5])
    ids, segments = panoptic_inference(logits, masks, THINGS, overlap_threshold=0.8)
    assert [s["category_id"] for s in segments] == [0]
    assert (ids[:, 4] == 0).all()
    ids, segments = panoptic_inference(logits, masks, THINGS, overlap_threshold=0.19)
    assert [s["category_id"] for s in segments] == [0, 1]
    assert (ids[:, 4] == 2).all()


def test_overlap_exactly_at_the_threshold_is_kept():
    logits = torch.cat([_logits(0), _logits(1, confidence=4.0)])
    masks = _masks(np.s_[:, :2], np.s_[:, :8])  # keeps 6 of 8 columns
    assert len(panoptic_inference(logits, masks, THINGS, overlap_threshold=0.75)[1]) == 2


def test_unsure_queries_and_no_object_are_dropped():
    logits = torch.cat([_logits(0, confidence=1.0), _logits(CLASSES)])
    assert len(confident_queries(logits, 0.8)) == 0
    ids, segments = panoptic_inference(logits, _masks(LEFT, RIGHT), THINGS)
    assert segments == []
    assert ids.shape == (6, 10)
    assert ids.dtype == torch.int32
    assert not ids.any()


def test_a_query_that_wins_pixels_below_one_half_makes_no_segment():
    masks = torch.full((1, 6, 10), -0.1)  # probability 0.475 everywhere
    ids, segments = panoptic_inference(_logits(1), masks, THINGS)
    assert segments == []
    assert not ids.any()


def test_without_a_pixel_threshold_unsure_pixels_belong_to_a_segment():
    masks = _masks(LEFT)
    masks[0][RIGHT] = -1.0
    ids, _ = panoptic_inference(_logits(1), masks, THINGS, 0.5, 0.5, pixel_threshold=0.0)
    assert (ids == 1).all()
    ids, segments = panoptic_inference(_logits(1), masks - 20, THINGS, 0.5, 0.5, 0.0)
    assert segments == [], "a mask without a sure pixel is no segment"
    assert not ids.any()


def test_no_queries_at_all():
    ids, segments = panoptic_inference(torch.zeros(0, CLASSES + 1), torch.zeros(0, 4, 5), THINGS)
    assert ids.shape == (4, 5)
    assert segments == []


def test_partition_is_that_of_the_official_code(shared):
    golden = np.load(shared / "parity/inference/mask2former.npz")
    ids, segments = panoptic_inference(
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
    assert len(described) == len(wanted)
    for mine, theirs in pairs:
        assert described.get(mine) == wanted.get(theirs)
