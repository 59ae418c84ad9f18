"""The bag of rows against grid_sample, a plain loop and finite differences."""

import math

import pytest
import torch

from mask_transformers.layers.deformable_attention import DeformableAttention, grid_centres
from mask_transformers.layers.deformable_sampling import sample_levels, sample_levels_by_grid

LEVELS = [((3, 5),), ((1, 1),), ((4, 3), (2, 2), (1, 1))]


def _inputs(sizes, batch=2, queries=4, heads=2, points=3, dim=4):
    length = sum(h * w for h, w in sizes)
    value = torch.randn(batch, length, heads, dim)
    shape = (batch, queries, heads, len(sizes), points)
    extent = torch.tensor([(w, h) for h, w in sizes], dtype=torch.float32)
    # From well outside on one side to well outside on the other.
    place = torch.rand(*shape, 2) * (extent[:, None] + 5) - 3
    return value, place, torch.rand(shape)


def _by_loops(value, sizes, place, weight):
    out = torch.zeros(*place.shape[:3], value.shape[-1])
    for n, q, head, level, point in torch.cartesian_prod(
        *[torch.arange(size) for size in weight.shape]
    ).tolist():
        h, w = sizes[level]
        start = sum(a * b for a, b in sizes[:level])
        x, y = place[n, q, head, level, point].tolist()
        for column in (math.floor(x), math.floor(x) + 1):
            for row in (math.floor(y), math.floor(y) + 1):
                if 0 <= column < w and 0 <= row < h:
                    share = (1 - abs(x - column)) * (1 - abs(y - row))
                    share *= weight[n, q, head, level, point].item()
                    out[n, q, head] += share * value[n, start + row * w + column, head]
    return out


@pytest.mark.parametrize("sizes", LEVELS)
@pytest.mark.parametrize("sample", [sample_levels, sample_levels_by_grid])
@pytest.mark.parametrize("batch", [1, 2])
def test_both_forms_equal_plain_loops(sizes, sample, batch):
    value, place, weight = _inputs(sizes, batch)
    expected = _by_loops(value, sizes, place, weight)
    torch.testing.assert_close(sample(value, sizes, place, weight), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sizes", LEVELS)
def test_gradients_equal_those_of_the_grid_form(sizes):
    inputs = [x.requires_grad_() for x in _inputs(sizes)]
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    gradient = torch.randn(2, 4, 2, 4)
    value, place, weight = inputs
    sample_levels(value, sizes, place, weight).backward(gradient)
    value, place, weight = doubles
    sample_levels_by_grid(value, sizes, place, weight).backward(gradient.double())
    for ours, reference in zip(inputs, doubles, strict=True):
        torch.testing.assert_close(ours.grad.double(), reference.grad, atol=1e-5, rtol=1e-4)


def test_gradients_equal_finite_differences():
    sizes = ((4, 3), (2, 2))
    value, place, weight = _inputs(sizes)
    place = place.floor() + 0.25 + 0.5 * torch.rand_like(place)  # away from the kinks
    inputs = [x.requires_grad_() for x in (value, place, weight)]
    out = sample_levels(value, sizes, place, weight)
    probe = torch.randn_like(out)
    out.backward(probe)
    for index, tensor in enumerate(inputs):
        direction = torch.randn_like(tensor)
        step, sums = 1e-2, []
        for sign in (1, -1):
            moved = [x.detach() for x in inputs]
            moved[index] = moved[index] + sign * step * direction
            v, p, w = moved
            sums.append((sample_levels(v, sizes, p, w).double() * probe).sum())
        slope = (sums[0] - sums[1]) / (2 * step)
        expected = (tensor.grad.double() * direction).sum()
        torch.testing.assert_close(slope, expected, atol=2e-2, rtol=2e-2)


def test_whole_numbers_are_pixel_centres_and_outside_is_zero():
    value = torch.arange(6.0).view(1, 6, 1, 1)
    place = torch.tensor([[1.0, 1.0], [2.0, 0.0], [-1.0, 0.0], [3.0, 1.0], [1e6, -1e6]])
    out = sample_levels(value, ((2, 3),), place.view(1, 5, 1, 1, 1, 2), torch.ones(1, 5, 1, 1, 1))
    assert out.flatten().tolist() == [4, 2, 0, 0, 0]


def test_grid_centres_are_the_same_place_on_every_level():
    centres = grid_centres(((2, 2), (1, 1)), "cpu")
    assert centres.shape == (5, 2, 2)
    assert centres[:4, 0].tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert centres[0, 1].tolist() == [-0.25, -0.25]
    assert centres[4].tolist() == [[0.5, 0.5], [0, 0]]


def test_attention_with_equal_weights_averages_its_samples():
    layer = DeformableAttention(dim=8, heads=2, levels=1, points=2)
    torch.nn.init.eye_(layer.value_proj.weight)
    torch.nn.init.eye_(layer.output_proj.weight)
    torch.nn.init.zeros_(layer.sampling_offsets.bias)
    tokens = torch.randn(1, 6, 8)
    sizes = ((2, 3),)
    out = layer(tokens, tokens, grid_centres(sizes, "cpu"), sizes)
    torch.testing.assert_close(out, tokens)


def test_width_must_divide_into_heads():
    with pytest.raises(ValueError, match="10 is not a multiple of 4 heads"):
        DeformableAttention(dim=10, heads=4, levels=1, points=1)
