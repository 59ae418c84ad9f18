import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mask_transformers.inference.detr_panoptic import detr_panoptic_inference, sure_queries


def _masks(*boxes, size=(8, 12)):
    masks = torch.full((len(boxes), *size), -5.0)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 5.0
    return masks


def test_queries_that_are_sure_of_an_object():
    probabilities = torch.tensor([[0.9, 0.05, 0.05], [0.5, 0.3, 0.2], [0.05, 0.0, 0.95]])
    index, labels = sure_queries(probabilities, 0.85)
    assert (index.tolist(), labels.tolist()) == ([0], [0])
    assert sure_queries(probabilities, 0.4)[0].tolist() == [0, 1]


def test_stuff_of_a_class_is_one_segment_and_things_are_not():
    labels = torch.tensor([0, 0, 1, 1])
    masks = _masks((0, 0, 8, 3), (0, 3, 8, 6), (0, 6, 8, 9), (0, 9, 8, 12))
    ids, segments = detr_panoptic_inference(labels, masks, {0}, (8, 12))
    assert [(s["category_id"], s["isthing"]) for s in segments] == [
        (0, True),
        (0, True),
        (1, False),
    ]
    assert ids.unique().tolist() == [s["id"] for s in segments] == [1, 2, 3]
    assert (ids[:, 6:9] == 3).all()


def test_small_segments_leave_their_pixels_to_the_others():
    masks = _masks((0, 0, 8, 12), (2, 2, 4, 4))
    masks[1] *= 2
    for smallest, count in ((3, 2), (4, 1)):
        ids, segments = detr_panoptic_inference(
            torch.tensor([0, 1]), masks, {0, 1}, (8, 12), smallest
        )
        assert len(segments) == count
        assert ids.unique().tolist() == list(range(1, count + 1))


def test_areas_are_counted_at_the_size_of_the_output():
    masks = _masks((0, 0, 8, 12), (2, 2, 4, 4))
    masks[1] *= 2
    ids, segments = detr_panoptic_inference(torch.tensor([0, 1]), masks, {0, 1}, (16, 24))
    assert ids.shape == (16, 24)
    assert len(segments) == 2
    assert (ids == 2).sum() == 16


# Odd sizes of the masks, so that no pixel of the output lies between two of theirs.
@pytest.mark.parametrize("output", [(23, 31), (7, 5), (18, 20)])
def test_segments_are_resized_as_by_pillow(output):
    masks = torch.randn(4, 9, 13)
    ids, _ = detr_panoptic_inference(torch.zeros(4).long(), masks, {0}, output, smallest_area=0)
    winner = masks.argmax(0) + 1
    image = Image.fromarray(winner.numpy().astype(np.uint8))
    assert np.array_equal(ids, np.asarray(image.resize(output[::-1], Image.Resampling.NEAREST)))
    other = F.interpolate(winner[None, None].float(), size=output, mode="nearest")[0, 0]
    assert (ids != other).any()


def test_nothing_is_left():
    for masks in (_masks(), _masks((0, 0, 1, 1), size=(1, 1))):
        labels = torch.zeros(len(masks), dtype=torch.long)
        ids, segments = detr_panoptic_inference(labels, masks, {0}, masks.shape[1:])
        assert segments == []
        assert ids.dtype == torch.int32
        assert (ids == 0).all()


def test_segments_are_those_of_the_official_code(shared):
    golden = np.load(shared / "parity/inference/detr.npz")
    probabilities = torch.from_numpy(golden["pred_logits"]).softmax(-1)
    masks = torch.from_numpy(golden["pred_masks"])
    index, labels = sure_queries(probabilities, float(golden["threshold"]))
    things = set(range(int(golden["num_things"])))
    ids, segments = detr_panoptic_inference(labels, masks[index], things, masks.shape[1:])
    expected = json.loads(str(golden["segments"]))
    classes = {segment["id"]: segment["category_id"] for segment in expected}
    found = {segment["id"]: segment["category_id"] for segment in segments}
    assert len(found) == len(classes) > 3
    for identity, category in found.items():
        [theirs] = np.unique(golden["panoptic"][ids.numpy() == identity])
        assert classes[int(theirs)] == category
        assert (golden["panoptic"] == theirs).sum() == (ids == identity).sum()
