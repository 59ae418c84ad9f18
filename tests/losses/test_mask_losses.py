import math

import pytest
import torch

from mask_transformers.losses.masks import bce_loss, dice_loss
from mask_transformers.losses.points import random_points, sample_at, uncertain_points


def _random_pairs():
    return torch.randn(4, 9) * 3, torch.rand(4, 9).round()


def test_bce_is_the_mean_over_points():
    logits, targets = _random_pairs()
    expected = [
        sum(
            -t * math.log(1 / (1 + math.exp(-x))) - (1 - t) * math.log(1 / (1 + math.exp(x)))
            for x, t in zip(row, wanted, strict=True)
        )
        / 9
        for row, wanted in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    torch.testing.assert_close(bce_loss(logits, targets), torch.tensor(expected))


def test_dice_is_one_minus_twice_the_overlap_over_the_sizes():
    logits, targets = _random_pairs()
    expected = []
    for row, wanted in zip(logits.tolist(), targets.tolist(), strict=True):
        p = [1 / (1 + math.exp(-x)) for x in row]
        overlap = sum(a * b for a, b in zip(p, wanted, strict=True))
        expected.append(1 - (2 * overlap + 1) / (sum(p) + sum(wanted) + 1))
    torch.testing.assert_close(dice_loss(logits, targets), torch.tensor(expected))


def test_losses_of_huge_logits_are_finite():
    logits, targets = torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]])
    assert bce_loss(logits, targets).item() == pytest.approx(1e4)
    assert dice_loss(logits, targets).item() == pytest.approx(1 - 1 / 3)


def test_points_are_in_units_of_the_image_at_any_resolution():
    coarse, fine = torch.rand(1, 1, 4, 6), torch.empty(1, 1, 8, 12)
    fine[:] = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    y, x = torch.meshgrid((torch.arange(4) + 0.5) / 4, (torch.arange(6) + 0.5) / 6, indexing="ij")
    centres = torch.stack([x, y], -1).view(1, -1, 2)
    torch.testing.assert_close(sample_at(coarse, centres)[0, 0], coarse.flatten())
    torch.testing.assert_close(sample_at(fine, centres)[0, 0], coarse.flatten())


def test_random_points_are_in_the_unit_square():
    points = random_points(3, 50, torch.device("cpu"))
    assert points.shape == (3, 50, 2)
    assert points.min() >= 0
    assert points.max() <= 1


def test_most_points_lie_where_the_mask_is_uncertain():
    column = torch.linspace(-40, 40, 64)  # zero in the middle
    masks = torch.stack([column.expand(64, 64), column[:, None].expand(64, 64)])
    points = uncertain_points(masks, 400, oversample_ratio=3, importance_ratio=0.75)
    assert points.shape == (2, 400, 2)
    for mask_points, axis in zip(points, (0, 1), strict=True):
        distance = (mask_points[:, axis] - 0.5).abs()
        # 300 of 1200 uniform points: the nearest quarter of the image, half of it on each side.
        assert distance[:300].max() < 0.17
        assert distance[300:].max() > 0.3
        assert mask_points[:300, 1 - axis].std() > 0.2


@pytest.mark.parametrize(("ratio", "important"), [(0.0, 0), (1.0, 40)])
def test_importance_ratio_bounds(ratio, important):
    masks = torch.linspace(-40, 40, 64).expand(1, 64, 64)
    points = uncertain_points(masks, 40, oversample_ratio=20, importance_ratio=ratio)
    near = (points[0, :, 0] - 0.5).abs() < 0.1
    assert near.sum() == 40 if important else near.sum() < 20
