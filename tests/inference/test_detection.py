import torch

from mask_transformers.inference.detection import (
    best_classes,
    contiguous_probabilities,
    detected_instances,
)


def test_every_query_stands_for_its_best_class():
    probabilities = torch.tensor([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2], [0.05, 0.05, 0.9]])
    scores, labels, index = best_classes(probabilities, 2)
    assert (labels.tolist(), index.tolist()) == ([0, 1], [1, 0])
    torch.testing.assert_close(scores, torch.tensor([0.7, 0.5]))
    assert best_classes(probabilities, 9)[2].tolist() == [1, 0, 2]
    assert best_classes(probabilities, 9, {1})[2].tolist() == [0]


def test_probabilities_in_the_order_of_the_data_set():
    logits = torch.randn(5, 8)
    found = contiguous_probabilities(logits, torch.tensor([6, 2]))
    torch.testing.assert_close(found, logits.softmax(1)[:, [6, 2, 7]])
    assert torch.equal(contiguous_probabilities(logits, None), logits.softmax(1))


def test_boxes_are_scaled_to_the_output():
    boxes = torch.tensor([[0.5, 0.5, 1.0, 0.5]])
    found = detected_instances(torch.ones(1), torch.zeros(1), boxes, (40, 60))
    assert found.image_size == (40, 60)
    assert found.pred_boxes.tensor.tolist() == [[0.0, 10.0, 60.0, 30.0]]
