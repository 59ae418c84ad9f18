import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from torch import nn

from mask_transformers.layers.position_encoding import sine_position_encoding
from mask_transformers.pixel_decoders import FPNPixelDecoder, TransformerFPNPixelDecoder

CHANNELS = {"res2": 4, "res3": 6, "res4": 8, "res5": 10}
SHAPES = {
    name: ShapeSpec(channels=c, stride=4 * 2**i) for i, (name, c) in enumerate(CHANNELS.items())
}


def _plain(in_features=tuple(CHANNELS), dim=64):
    return FPNPixelDecoder(SHAPES, in_features=list(in_features), dim=dim, mask_dim=12)


def _transformer(in_features=tuple(CHANNELS), dim=64):
    return TransformerFPNPixelDecoder(
        SHAPES, in_features=list(in_features), dim=dim, mask_dim=12, layers=2, heads=2, ffn_dim=16
    )


def _features(batch=2, height=64, width=96):
    return {
        name: torch.randn(batch, s.channels, -(-height // s.stride), -(-width // s.stride))
        for name, s in SHAPES.items()
    }


def test_the_level_is_the_backbone_feature_itself():
    features = _features()
    decoder = _plain()
    pixels = decoder(features)
    assert pixels.mask_features.shape == (2, 12, 16, 24)
    assert pixels.levels == [features["res5"]]
    assert decoder.level_channels == [10]


def test_the_level_is_the_encoder_output():
    decoder = _transformer()
    pixels = decoder(_features())
    assert pixels.mask_features.shape == (2, 12, 16, 24)
    assert [tuple(level.shape) for level in pixels.levels] == [(2, 64, 2, 3)]
    assert decoder.level_channels == [64]


@pytest.mark.parametrize("make", [_plain, _transformer])
def test_sizes_that_are_no_multiples_of_the_strides(make):
    assert make()(_features(height=70, width=33)).mask_features.shape[-2:] == (18, 9)


@pytest.mark.parametrize("make", [_plain, _transformer])
def test_fewer_levels(make):
    assert make(("res3", "res5"))(_features()).mask_features.shape == (2, 12, 8, 12)


@pytest.mark.parametrize("make", [_plain, _transformer])
def test_batched_equals_single(make):
    decoder, features = make().eval(), _features(batch=3)
    with torch.no_grad():
        batched = decoder(features)
        for i in range(3):
            alone = decoder({name: f[i : i + 1] for name, f in features.items()})
            torch.testing.assert_close(alone.mask_features[0], batched.mask_features[i])
            torch.testing.assert_close(alone.levels[0][0], batched.levels[0][i])


def test_pyramid_by_its_formula():
    decoder, features = _plain(("res4", "res5")).eval(), _features(batch=1)
    pyramid = decoder.pyramid
    with torch.no_grad():
        coarse = pyramid.output[1](features["res5"]).relu()
        up = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
        fine = pyramid.output[0](pyramid.lateral[0](features["res4"]) + up).relu()
        expected = F.conv2d(
            fine, decoder.mask_features.weight, decoder.mask_features.bias, padding=1
        )
        torch.testing.assert_close(decoder(features).mask_features, expected)


def test_encoder_layers_are_those_of_pytorch_with_positions_on_queries_and_keys():
    decoder, features = _transformer().eval(), _features(batch=1)
    size = features["res5"].shape[-2:]
    position = sine_position_encoding(*size, 64).flatten(2).transpose(1, 2)
    with torch.no_grad():
        tokens = decoder.input_proj(features["res5"]).flatten(2).transpose(1, 2)
        for layer in decoder.layers:
            attention = nn.MultiheadAttention(64, 2, batch_first=True)
            attention.load_state_dict(layer.self_attn.state_dict())
            key = tokens + position
            tokens = layer.norm1(tokens + attention(key, key, tokens)[0])
            tokens = layer.norm2(tokens + layer.linear2(layer.linear1(tokens).relu()))
        expected = tokens.transpose(1, 2).unflatten(2, size)
        torch.testing.assert_close(decoder(features).levels[0], expected)


def test_dropout_is_for_training_only():
    decoder, features = _transformer(), _features()
    with torch.no_grad():
        assert not torch.equal(decoder(features).levels[0], decoder(features).levels[0])
        decoder.eval()
        assert torch.equal(decoder(features).levels[0], decoder(features).levels[0])


@pytest.mark.parametrize("make", [_plain, _transformer])
def test_features_that_do_not_fit_are_named(make):
    with pytest.raises(ValueError, match=r"IN_FEATURES names \['res9'\]"):
        make(("res2", "res9"))
    with pytest.raises(ValueError, match="fine to coarse"):
        make(("res5", "res2"))
    with pytest.raises(ValueError, match="HIDDEN_DIM is 40"):
        make(dim=40)
