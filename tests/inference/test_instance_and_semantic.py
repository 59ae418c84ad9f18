import numpy as np
import pytest
import torch

from mask_transformers.inference.instance import (
    instance_inference,
    kmax_instance_inference,
    top_instances,
)
from mask_transformers.inference.semantic import kmax_semantic_inference, semantic_inference


def test_score_is_class_probability_times_mean_foreground_probability():
    logits = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]])  # two classes and no-object
    masks = torch.full((2, 4, 5), -3.0)
    masks[0, 1:3, 2:4] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    masks[1, 0, 0] = 0.5
    result = instance_inference(logits, masks, count=2)
    assert result.image_size == (4, 5)
    assert result.pred_classes.tolist() == [0, 1]
    probability = logits.softmax(-1)
    inside = torch.tensor([1.0, 2.0, 3.0, 4.0]).sigmoid().mean()
    expected = [probability[0, 0] * inside, probability[1, 1] * torch.tensor(0.5).sigmoid()]
    torch.testing.assert_close(result.scores, torch.stack(expected), atol=1e-5, rtol=1e-5)
    assert result.pred_masks.dtype == torch.bool
    assert result.pred_masks.sum((1, 2)).tolist() == [4, 1]
    assert result.pred_boxes.tensor.tolist() == [[2, 1, 4, 3], [0, 0, 1, 1]]


def test_a_query_may_give_several_classes():
    logits = torch.tensor([[2.0, 1.0, -9.0], [-3.0, -3.0, 9.0]])
    result = instance_inference(logits, torch.ones(2, 4, 4), count=2)
    assert result.pred_classes.tolist() == [0, 1]
    assert result.pred_masks.all()


def test_only_wanted_classes_are_kept():
    logits = torch.randn(6, 5)
    result = instance_inference(logits, torch.randn(6, 4, 4), count=100, classes={1, 3})
    assert set(result.pred_classes.tolist()) == {1, 3}
    assert len(result) == 12


def test_empty_masks_score_zero():
    result = instance_inference(torch.randn(2, 3), torch.full((2, 4, 4), -1.0), count=3)
    assert result.scores.tolist() == [0, 0, 0]
    assert result.pred_boxes.tensor.abs().sum() == 0


@pytest.mark.parametrize(("queries", "classes"), [(0, None), (3, set())])
def test_nothing_found(queries, classes):
    result = instance_inference(
        torch.randn(queries, 3), torch.randn(queries, 4, 4), classes=classes
    )
    assert len(result) == 0
    assert result.pred_masks.shape == (0, 4, 4)


def test_top_instances_are_the_best_pairs_in_order():
    logits = torch.randn(5, 4)
    scores, query, label = top_instances(logits, 6)
    probability = logits.softmax(-1)[:, :-1]
    torch.testing.assert_close(scores, probability.flatten().sort(descending=True).values[:6])
    torch.testing.assert_close(probability[query, label], scores)
    assert len(top_instances(logits, 1000)[0]) == 15


def test_semantic_is_the_sum_over_queries():
    logits, masks = torch.randn(3, 5), torch.randn(3, 2, 4)
    scores = semantic_inference(logits, masks)
    assert scores.shape == (4, 2, 4)
    for label in range(4):
        expected = sum(logits[q].softmax(-1)[label] * masks[q].sigmoid() for q in range(3))
        torch.testing.assert_close(scores[label], expected)


def test_masks_that_share_a_pixel():
    logits = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 9.0]])
    masks = torch.zeros(3, 4, 5)
    masks[0, 1:3] = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    shares = masks.softmax(0)
    result = kmax_instance_inference(logits, masks, count=2)
    assert result.pred_classes.tolist() == [0, 1]
    assert torch.equal(result.pred_masks[0], shares[0] >= 0.4)
    assert result.pred_masks.sum((1, 2)).tolist() == [8, 0]
    expected = logits.softmax(-1)[0, 0] * shares[0, 1, 1:].mean()
    torch.testing.assert_close(result.scores, torch.stack([expected, torch.tensor(0.0)]))
    wider = kmax_instance_inference(logits, masks, count=2, classes={1}, pixel_threshold=0.3)
    assert wider.pred_classes.tolist() == [1]
    assert wider.pred_masks.sum() == 12
    semantic = kmax_semantic_inference(logits, masks)
    for label in range(2):
        expected = sum(logits[q].softmax(-1)[label] * shares[q] for q in range(3))
        torch.testing.assert_close(semantic[label], expected)


def test_no_queries_that_share_a_pixel():
    result = kmax_instance_inference(torch.zeros(0, 3), torch.zeros(0, 4, 4))
    assert result.pred_masks.shape == (0, 4, 4)
    assert not kmax_semantic_inference(torch.zeros(0, 3), torch.zeros(0, 4, 4)).any()


def test_semantic_of_shared_pixels_is_that_of_the_official_code(shared):
    golden = np.load(shared / "parity/inference/kmax_deeplab.npz")
    logits, masks = (torch.from_numpy(golden[k]) for k in ("pred_logits", "pred_masks"))
    semantic = kmax_semantic_inference(logits, masks)[:, ::4, ::4].numpy()
    np.testing.assert_allclose(semantic, golden["semantic"], rtol=1e-5, atol=1e-6)


def test_results_are_those_of_the_official_code(shared):
    golden = np.load(shared / "parity/inference/mask2former.npz")
    logits, masks = (torch.from_numpy(golden[k]) for k in ("pred_logits", "pred_masks"))
    semantic = semantic_inference(logits, masks)[:, ::4, ::4].numpy()
    np.testing.assert_allclose(semantic, golden["semantic"], rtol=1e-5, atol=1e-6)
    found = instance_inference(logits, masks, 30, set(range(int(golden["num_things"]))))
    rows = zip(found.scores, found.pred_classes, found.pred_masks.sum((1, 2)), strict=True)
    names = ("instance_scores", "instance_classes", "instance_areas")
    expected = zip(*(golden[name] for name in names), strict=True)
    assert _sorted(rows) == pytest.approx(_sorted(expected), rel=1e-5)


def _sorted(rows):
    return np.array(sorted((int(c), int(a), round(float(s), 4)) for s, c, a in rows))
