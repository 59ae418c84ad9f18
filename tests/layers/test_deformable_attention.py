"""Deformable attention against its formula, written with loops (Deformable DETR, eq. 3)."""

import math

import pytest
import torch
from torch import nn

from mask_transformers.layers.deformable_attention import DeformableAttention, grid_centres

HEADS, POINTS, DIM = 2, 3, 8
SIZES = ((3, 4), (2, 2))
LENGTH = sum(h * w for h, w in SIZES)


def _layer():
    layer = DeformableAttention(DIM, HEADS, len(SIZES), POINTS)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def _pixel(image, x, y):
    """Bilinear value (D,) at a place of an image (h, w, D) that is zero outside."""
    value = image.new_zeros(image.shape[-1])
    for column in (math.floor(x), math.floor(x) + 1):
        for row in (math.floor(y), math.floor(y) + 1):
            if 0 <= column < image.shape[1] and 0 <= row < image.shape[0]:
                value += (1 - abs(x - column)) * (1 - abs(y - row)) * image[row, column]
    return value


def _by_loops(layer, query, tokens):
    """Σ_heads W_m Σ_levels Σ_points A · W'_m x(φ(p̂) + Δp) of one image, (L, C)."""
    value = layer.value_proj(tokens).view(LENGTH, HEADS, -1)
    out = []
    for token, centre in zip(query, grid_centres(SIZES, "cpu"), strict=True):
        offsets = layer.sampling_offsets(token).view(HEADS, len(SIZES), POINTS, 2)
        weights = layer.attention_weights(token).view(HEADS, -1).softmax(-1)
        weights = weights.view(HEADS, len(SIZES), POINTS)
        heads = []
        for head in range(HEADS):
            images = value[:, head].split([h * w for h, w in SIZES])
            total = value.new_zeros(DIM // HEADS)
            for level, (h, w) in enumerate(SIZES):
                for point in range(POINTS):
                    x, y = (centre[level] + offsets[head, level, point]).tolist()
                    sample = _pixel(images[level].view(h, w, -1), x, y)
                    total += weights[head, level, point] * sample
            heads.append(total)
        out.append(layer.output_proj(torch.cat(heads)))
    return torch.stack(out)


@pytest.mark.parametrize("batch", [1, 2])
@torch.no_grad()
def test_layer_equals_its_formula(batch):
    layer = _layer()
    query, tokens = torch.randn(batch, LENGTH, DIM), torch.randn(batch, LENGTH, DIM)
    out = layer(query, tokens, grid_centres(SIZES, "cpu"), SIZES)
    expected = [_by_loops(layer, q, t) for q, t in zip(query, tokens, strict=True)]
    torch.testing.assert_close(out, torch.stack(expected), atol=1e-5, rtol=1e-4)


def test_gradients_equal_those_in_double_precision():
    # Only float32 on a CPU takes the path with its own backward pass.
    layer, query = _layer(), torch.randn(2, LENGTH, DIM)
    tokens, probe = torch.randn(2, LENGTH, DIM), torch.randn(2, LENGTH, DIM)
    centres = grid_centres(SIZES, "cpu")
    gradients = []
    for dtype in (torch.float32, torch.float64):
        layer.to(dtype)
        inputs = [x.to(dtype).requires_grad_() for x in (query, tokens)]
        out = layer(*inputs, centres.to(dtype), SIZES)
        inputs += layer.parameters()
        gradients.append([g.double() for g in torch.autograd.grad(out, inputs, probe.to(dtype))])
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-3)


def test_a_new_layer_looks_at_rings_around_the_query_with_equal_weights():
    layer = DeformableAttention(dim=8, heads=4, levels=2, points=3)
    query = torch.randn(5, 8)
    offsets = layer.sampling_offsets(query).view(5, 4, 2, 3, 2)
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    expected = directions[:, None, None] * torch.tensor([1.0, 2.0, 3.0])[:, None]
    torch.testing.assert_close(offsets, expected.expand_as(offsets), atol=1e-5, rtol=0)
    assert not layer.attention_weights(query).any()


def test_diagonal_heads_look_as_many_pixels_away_in_x_and_in_y():
    layer = DeformableAttention(dim=8, heads=8, levels=1, points=2)
    offsets = layer.sampling_offsets.bias.view(8, 1, 2, 2)
    torch.testing.assert_close(offsets[1, 0], torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
    torch.testing.assert_close(offsets[3, 0, 0], torch.tensor([-1.0, 1.0]))


def test_weights_do_not_overflow():
    layer = _layer()
    with torch.no_grad():
        layer.attention_weights.bias.add_(1e4)
    tokens = torch.randn(1, LENGTH, DIM)
    out = layer(tokens, tokens, grid_centres(SIZES, "cpu"), SIZES)
    assert out.isfinite().all()


def test_centres_count_x_and_y_in_pixels_of_their_own_level():
    centres = grid_centres(((1, 2), (4, 2)), "cpu")
    assert centres.shape == (10, 2, 2)
    assert centres[1].tolist() == [[1, 0], [1, 1.5]]  # second pixel of the first level
    assert centres[2 + 7].tolist() == [[1, 0.375], [1, 3]]  # last pixel of the second one
