import pytest
import torch

from mask_transformers.layers.conv_norm import resize_aligned
from mask_transformers.losses.pixel_sampling import class_areas, gumbel_top_k, resized_values


def test_one_of_a_few_is_drawn_in_proportion_to_its_weight():
    weights = torch.tensor([1.0, 2.0, 5.0])
    drawn = torch.cat([gumbel_top_k(weights.log(), 1) for _ in range(4000)])
    share = drawn.bincount(minlength=3) / 4000
    torch.testing.assert_close(share, weights / 8, atol=0.03, rtol=0)


def test_nothing_is_drawn_twice():
    assert sorted(gumbel_top_k(torch.randn(50), 50).tolist()) == list(range(50))
    assert gumbel_top_k(torch.randn(50), 0).tolist() == []


def test_class_areas_add_up_the_targets_of_a_class():
    labels, areas = torch.tensor([3, 0, 3, 1]), torch.tensor([5.0, 2.0, 7.0, 1.0])
    assert class_areas(labels, areas).tolist() == [12, 2, 12, 1]


@pytest.mark.parametrize("source", [(5, 7), (4, 6), (9, 6), (1, 1), (17, 25)])
@pytest.mark.parametrize("size", [(17, 25), (16, 24), (1, 1)])
def test_values_are_those_of_the_resized_map(source, size):
    maps = torch.randn(3, *source)
    pixels = torch.randperm(size[0] * size[1])[:20]
    expected = resize_aligned(maps[None], size)[0].flatten(1)[:, pixels]
    torch.testing.assert_close(resized_values(maps, pixels, size), expected, atol=2e-5, rtol=1e-5)
