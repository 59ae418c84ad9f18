import torch

from mask_transformers.losses.masks import bce_loss, dice_loss, focal_loss
from mask_transformers.matching.costs import (
    bce_cost,
    box_cost,
    class_cost,
    dice_cost,
    focal_cost,
    giou_cost,
    pq_cost,
)


def test_class_cost_is_minus_the_probability():
    logits, labels = torch.randn(5, 4), torch.tensor([2, 0, 2])
    cost = class_cost(logits, labels)
    assert cost.shape == (5, 3)
    for query in range(5):
        exponentials = logits[query].exp()
        for target, label in enumerate(labels.tolist()):
            expected = -exponentials[label] / exponentials.sum()
            torch.testing.assert_close(cost[query, target], expected)


def test_pq_cost_is_minus_probability_times_dice():
    logits, labels, dice = torch.randn(5, 4), torch.tensor([2, 0, 2]), torch.rand(5, 3)
    expected = [[-logits[q].softmax(0)[labels[t]] * dice[q, t] for t in range(3)] for q in range(5)]
    torch.testing.assert_close(pq_cost(logits, labels, dice), torch.tensor(expected))


def test_mask_costs_are_the_losses_of_all_pairs():
    logits, targets = torch.randn(5, 40) * 3, (torch.rand(3, 40) > 0.6).float()
    pairs = [(cost(logits, targets), loss) for cost, loss in COSTS]
    for cost, loss in pairs:
        assert cost.shape == (5, 3)
        for query in range(5):
            for target in range(3):
                expected = loss(logits[query : query + 1], targets[target : target + 1])[0]
                torch.testing.assert_close(cost[query, target], expected)


def test_mask_costs_of_soft_targets():
    logits, targets = torch.randn(2, 40), torch.rand(3, 40)
    for cost, loss in COSTS[:2]:  # the focal loss is not linear in the target
        expected = torch.stack([loss(logits, t.expand(2, -1)) for t in targets], 1)
        torch.testing.assert_close(cost(logits, targets), expected)


# The upper left quarter of the image, and all of it, cx, cy, w, h; to the same quarter, the upper
# right one, the lower right one, all of the image.
BOXES = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
TARGETS = torch.cat(
    [BOXES[:1], torch.tensor([[0.75, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]]), BOXES[1:]]
)


def test_box_cost_is_the_sum_of_the_four_differences():
    expected = [[0.0, 0.5, 1.0, 1.5], [1.5, 1.5, 1.5, 0.0]]
    assert box_cost(BOXES, TARGETS).tolist() == expected


def test_giou_cost_falls_with_overlap_and_rises_with_the_gap():
    # Of the quarters the upper two fill the box around them, opposite ones half of it.
    expected = [[-1.0, 0.0, 0.5, -0.25], [-0.25, -0.25, -0.25, -1.0]]
    torch.testing.assert_close(giou_cost(BOXES, TARGETS), torch.tensor(expected))


def _focal_loss(logits, targets):
    return focal_loss(logits, targets.bool())


COSTS = [(bce_cost, bce_loss), (dice_cost, dice_loss), (focal_cost, _focal_loss)]
