"""Samples at pixel centres, on borders and outside, where bilinear sampling has its kinks."""

import itertools

import pytest
import torch

from mask_transformers.layers.deformable_sampling import sample_levels, sample_levels_by_grid

SIZES = ((3, 2), (1, 1), (1, 4))
LENGTH = sum(h * w for h, w in SIZES)


def _at(places, heads=2):
    """Every place (P, 2) on every level as a query of its own: (1, P, heads, levels, 1, 2)."""
    places = torch.tensor(places, dtype=torch.float32)
    return places[None, :, None, None, None].repeat(1, 1, heads, len(SIZES), 1, 1)


def _kinks():
    return list(itertools.product([-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 3.5, 4.0], repeat=2))


def test_values_and_gradients_on_kinks_and_borders():
    place = _at(_kinks())
    weight, value = torch.randn(place.shape[:-1]), torch.randn(1, LENGTH, 2, 3)
    probe = torch.randn(*place.shape[:3], 3)
    results = []
    for sample, dtype in ((sample_levels, torch.float32), (sample_levels_by_grid, torch.float64)):
        v, w = (x.to(dtype).requires_grad_() for x in (value, weight))
        out = sample(v, SIZES, place.to(dtype), w)
        gradients = torch.autograd.grad(out, (v, w), probe.to(dtype))
        results.append([x.detach().double() for x in (out, *gradients)])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("axis", [0, 1])
def test_gradient_of_a_kink_lies_between_the_slopes_of_its_sides(axis):
    place, value = _at(_kinks()), torch.randn(1, LENGTH, 2, 3)
    weight = torch.rand(place.shape[:-1])
    step = torch.zeros(2)
    step[axis] = 0.125
    ones = torch.ones(3)

    def score(p):  # one number per sample: the levels apart
        parts = torch.eye(len(SIZES))[:, None, None, None, :, None] * weight
        return torch.stack([sample_levels(value, SIZES, p, part) @ ones for part in parts], -1)

    here, before, after = score(place), score(place - step), score(place + step)
    slopes = torch.stack([here - before, after - here]) / 0.125
    moving = place.clone().requires_grad_()
    sample_levels(value, SIZES, moving, weight).sum().backward()
    gradient = moving.grad[..., 0, axis]
    assert (gradient >= slopes.amin(0) - 1e-4).all()
    assert (gradient <= slopes.amax(0) + 1e-4).all()


@pytest.mark.parametrize("far", [5.0, 1e9, 3e38, float("inf")])
def test_far_outside_gives_zero_and_moves_nothing(far):
    place = _at([(far, 0.5), (-far, 0.5), (0.5, far), (0.5, -far), (far, -far)])
    value = torch.randn(1, LENGTH, 2, 3)
    weight = torch.rand(place.shape[:-1])
    inputs = [x.requires_grad_() for x in (value, place, weight)]
    out = sample_levels(value, SIZES, place, weight)
    assert not out.any()
    for gradient in torch.autograd.grad(out.sum(), inputs):
        assert not gradient.any()


def test_nan_places_give_nan_for_the_matcher_to_report():
    value = torch.randn(1, 12, 2, 4)
    place = torch.ones(1, 3, 2, 1, 2, 2)
    place[0, 1, 0, 0, 0, 0] = float("nan")
    out = sample_levels(value, ((3, 4),), place, torch.ones(place.shape[:-1]))
    bad = out.isnan()
    assert bad[0, 1, 0].all()
    assert bad.sum() == value.shape[-1], "other queries and heads are untouched"


def test_levels_images_and_heads_do_not_see_each_other():
    batch, heads = 2, 2
    place = _at(_kinks(), heads).repeat(batch, 1, 1, 1, 1, 1)
    starts = [0, 6, 7]
    for image, head, level in itertools.product(range(batch), range(heads), range(len(SIZES))):
        value = torch.ones(batch, LENGTH, heads, 1)
        h, w = SIZES[level]
        value[image, starts[level] : starts[level] + h * w, head] = 0
        weight = torch.zeros(place.shape[:-1])
        weight[:, :, :, level] = 1
        out = sample_levels(value, SIZES, place, weight)[..., 0]
        assert not out[image, :, head].any()
        out[image, :, head] = 1
        assert all(out[n, :, m].any() for n in range(batch) for m in range(heads))


def test_a_level_of_one_pixel_is_a_tent():
    x = torch.tensor([-1.0, -0.75, -0.25, 0.0, 0.5, 1.0])
    place = torch.stack([x, torch.zeros(6)], -1).view(1, 6, 1, 1, 1, 2).requires_grad_()
    out = sample_levels(torch.full((1, 1, 1, 1), 8.0), ((1, 1),), place, torch.ones(1, 6, 1, 1, 1))
    assert out.flatten().tolist() == [0, 2, 6, 8, 4, 0]
    out.sum().backward()
    assert place.grad[0, [1, 2, 4], 0, 0, 0, 0].tolist() == [8, 8, -8]


@pytest.mark.parametrize("wanted", range(3))
def test_gradient_of_one_input_alone(wanted):
    place = _at([(0.25, 0.75), (-0.5, 0.25)])
    inputs = [torch.randn(1, LENGTH, 2, 3), place, torch.rand(place.shape[:-1])]
    inputs[wanted].requires_grad_()
    doubles = [x.detach().double() for x in inputs]
    doubles[wanted].requires_grad_()
    v, p, w = inputs
    sample_levels(v, SIZES, p, w).square().sum().backward()
    v, p, w = doubles
    sample_levels_by_grid(v, SIZES, p, w).square().sum().backward()
    ours, reference = inputs[wanted].grad, doubles[wanted].grad
    torch.testing.assert_close(ours.double(), reference, atol=1e-5, rtol=1e-4)


def _reversed_storage(x):
    """The same numbers, stored in the opposite order of dimensions."""
    dims = list(range(x.dim()))[::-1]
    return x.permute(dims).contiguous().permute(dims)


def test_memory_layout_does_not_matter():
    place = _at([(0.25, 0.75), (-0.5, 0.25)])
    plain = [torch.randn(1, LENGTH, 2, 3), place, torch.rand(place.shape[:-1])]
    results = []
    for inputs in (plain, [_reversed_storage(x) for x in plain]):
        v, p, w = (x.requires_grad_() for x in inputs)
        out = sample_levels(v, SIZES, p, w)
        results.append([out, *torch.autograd.grad(out.square().sum(), (v, p, w))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
