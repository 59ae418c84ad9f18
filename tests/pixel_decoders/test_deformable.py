import pytest
import torch
from detectron2.layers import ShapeSpec

from mask_transformers.pixel_decoders import DeformablePixelDecoder
from mask_transformers.registry import PIXEL_DECODERS

CHANNELS = {"res2": 4, "res3": 6, "res4": 8, "res5": 10}
SHAPES = {
    name: ShapeSpec(channels=c, stride=4 * 2**i) for i, (name, c) in enumerate(CHANNELS.items())
}


def _decoder(in_features=tuple(CHANNELS), dim=64):
    return DeformablePixelDecoder(
        SHAPES,
        in_features=list(in_features),
        dim=dim,
        mask_dim=12,
        layers=2,
        heads=2,
        points=3,
        ffn_dim=16,
    )


def _features(batch=2, height=64, width=96):
    return {
        name: torch.randn(batch, s.channels, -(-height // s.stride), -(-width // s.stride))
        for name, s in SHAPES.items()
    }


def test_shapes_and_order():
    pixels = _decoder()(_features())
    assert pixels.mask_features.shape == (2, 12, 16, 24)
    assert [tuple(level.shape) for level in pixels.levels] == [
        (2, 64, 2, 3),
        (2, 64, 4, 6),
        (2, 64, 8, 12),
    ]


def test_sizes_that_are_no_multiples_of_the_strides():
    pixels = _decoder()(_features(height=70, width=33))
    assert pixels.mask_features.shape[-2:] == (18, 9)
    assert [tuple(level.shape[-2:]) for level in pixels.levels] == [(3, 2), (5, 3), (9, 5)]


def test_fewer_levels():
    pixels = _decoder(("res3", "res5"))(_features())
    assert pixels.mask_features.shape == (2, 12, 8, 12)
    assert len(pixels.levels) == 1


def test_batched_equals_single():
    decoder, features = _decoder().eval(), _features(batch=3)
    with torch.no_grad():
        batched = decoder(features)
        for i in range(3):
            alone = decoder({name: value[i : i + 1] for name, value in features.items()})
            torch.testing.assert_close(
                batched.mask_features[i], alone.mask_features[0], rtol=1e-4, atol=1e-5
            )


def test_every_level_sees_every_other():
    decoder, features = _decoder(), _features(batch=1)
    for value in features.values():
        value.requires_grad_()
    decoder(features).levels[0].square().sum().backward()
    for name in ("res3", "res4", "res5"):
        assert features[name].grad.abs().sum() > 0
    assert features["res2"].grad is None  # the finest one only enters the mask features


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["res2", "res9"], r"IN_FEATURES names \['res9'\]"),
        (["res5", "res2"], "fine to coarse"),
        (["res2"], "two or more"),
        (["res2", "res2"], "fine to coarse"),
    ],
)
def test_impossible_features_name_the_key(names, message):
    with pytest.raises(ValueError, match=message):
        _decoder(names)


def test_width_that_group_norm_cannot_split():
    with pytest.raises(ValueError, match="HIDDEN_DIM is 40"):
        _decoder(dim=40)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"PIXEL_DECODER\.NAME.*DeformablePixelDecoder"):
        PIXEL_DECODERS.get("Nothing")
