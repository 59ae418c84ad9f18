"""Attention, position encoding and perceptron against PyTorch's own and known values."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mask_transformers.heads import predict_masks
from mask_transformers.layers.attention import MultiHeadAttention
from mask_transformers.layers.mlp import MLP
from mask_transformers.layers.position_encoding import sine_position_encoding


@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_pytorchs(masked):
    ours, reference = MultiHeadAttention(24, 4), nn.MultiheadAttention(24, 4, batch_first=True)
    nn.init.normal_(ours.in_proj_bias)
    reference.load_state_dict(ours.state_dict())
    query, key, value = torch.randn(2, 5, 24), torch.randn(2, 7, 24), torch.randn(2, 7, 24)
    attend = torch.rand(2, 5, 7) > 0.4
    attend[..., 0] = True
    blocked = (~attend).repeat_interleave(4, 0) if masked else None
    expected = reference(query, key, value, attn_mask=blocked, need_weights=False)[0]
    out = ours(query, key, value, attend if masked else None)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_attention_weights_equal_pytorchs():
    ours, reference = MultiHeadAttention(24, 4), nn.MultiheadAttention(24, 4, batch_first=True)
    nn.init.normal_(ours.in_proj_bias)
    reference.load_state_dict(ours.state_dict())
    query, key = 3 * torch.randn(2, 5, 24), 3 * torch.randn(2, 7, 24)
    expected = reference(query, key, key, need_weights=True)[1]  # the mean of the heads
    torch.testing.assert_close(ours.weights(query, key), expected)


def test_attention_width_must_divide_into_heads():
    with pytest.raises(ValueError, match="10 is not a multiple of 4 heads"):
        MultiHeadAttention(10, 4)


def test_position_encoding_has_y_first_and_alternates_sine_and_cosine():
    encoding = sine_position_encoding(2, 4, 8)
    assert encoding.shape == (1, 8, 2, 4)
    angle = 1 / (2 + 1e-6) * 2 * math.pi
    torch.testing.assert_close(encoding[0, 0, 0, 0].item(), math.sin(angle), atol=1e-5, rtol=0)
    torch.testing.assert_close(encoding[0, 1, 0, 3].item(), math.cos(angle), atol=1e-5, rtol=0)
    angle = 3 / (4 + 1e-6) * 2 * math.pi / 10000 ** (2 / 4)
    torch.testing.assert_close(encoding[0, 6, 1, 2].item(), math.sin(angle), atol=1e-5, rtol=0)
    assert torch.equal(encoding[0, :4, :, 0], encoding[0, :4, :, 3])


def test_position_encoding_needs_a_multiple_of_four_channels():
    with pytest.raises(ValueError, match="multiple of 4 channels, not 6"):
        sine_position_encoding(2, 2, 6)


def test_perceptron_ends_without_activation():
    mlp = MLP(3, 5, 2, 2)
    x = torch.randn(4, 3)
    expected = mlp.layers[1](mlp.layers[0](x).relu())
    torch.testing.assert_close(mlp(x), expected)
    assert (mlp(torch.randn(100, 3)) < 0).any()


def test_masks_of_resized_features_are_resized_masks():
    embedding, features = torch.randn(2, 3, 8), torch.randn(2, 8, 12, 20)

    def resize(x):
        return F.interpolate(x, size=(3, 5), mode="bilinear", align_corners=False)

    one = predict_masks(embedding, resize(features))
    other = resize(predict_masks(embedding, features))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
