import pytest
import torch
import torch.nn.functional as F

from mask_transformers.heads import predict_masks
from mask_transformers.registry import TRANSFORMER_DECODERS
from mask_transformers.structures import PixelFeatures
from mask_transformers.transformer_decoders import MaskedAttentionDecoder

SIZES = [(2, 3), (4, 6), (8, 12)]


def _decoder(layers=4, **arguments):
    numbers = {"num_classes": 5, "queries": 6, "dim": 16, "mask_dim": 8, "levels": 3}
    numbers.update(heads=2, ffn_dim=20, **arguments)
    return MaskedAttentionDecoder(layers=layers, **numbers)


def _pixels(batch=2, dim=16):
    levels = [torch.randn(batch, dim, *size) for size in SIZES]
    return PixelFeatures(torch.randn(batch, 8, 16, 24), levels)


def test_predictions_of_the_raw_queries_and_of_every_layer():
    predictions = _decoder(layers=4)(_pixels())
    assert len(predictions) == 5
    for logits, embedding in predictions:
        assert logits.shape == (2, 6, 6)
        assert embedding.shape == (2, 6, 8)


def test_raw_queries_predict_the_same_for_every_image():
    logits, embedding = _decoder()(_pixels())[0]
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(embedding[0], embedding[1])


def test_attention_is_where_the_resized_mask_is_foreground():
    decoder, pixels = _decoder(), _pixels()
    embedding = torch.randn(2, 6, 8)
    _, _, thumbnails = decoder._prepare_levels(pixels)
    masks = predict_masks(embedding, pixels.mask_features)
    for size, thumbnail in zip(SIZES, thumbnails, strict=True):
        resized = F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
        certain = resized.flatten(2).abs() > 1e-4
        expected = resized.flatten(2).sigmoid() >= 0.5
        expected = expected | ~expected.any(-1, keepdim=True)
        found = decoder._foreground(embedding, thumbnail)
        assert torch.equal(found[certain], expected[certain])


def test_a_query_that_saw_nothing_looks_everywhere():
    embedding, thumbnail = torch.zeros(1, 2, 8), torch.ones(1, 8, 2, 2)
    embedding[0, 0] = -1
    thumbnail[..., 0, 0] = -1  # for query 0 the only foreground
    embedding = torch.cat([embedding, -torch.ones(1, 1, 8)], 1)
    thumbnail_dark = torch.ones(1, 8, 2, 2)
    attend = MaskedAttentionDecoder._foreground(None, embedding, thumbnail)
    assert attend[0, 0].tolist() == [True, False, False, False]
    assert MaskedAttentionDecoder._foreground(None, embedding, thumbnail_dark).all()


def test_pixels_outside_the_mask_do_not_matter():
    decoder, pixels = _decoder(layers=1, levels=1), _pixels(batch=1)
    pixels.levels = pixels.levels[:1]
    with torch.no_grad():
        _, _, [thumbnail] = decoder._prepare_levels(pixels)
        attend = decoder._foreground(decoder(pixels)[0][1], thumbnail)[0]  # (Q, L)
        before = decoder(pixels)[1][0]
        unseen = ~attend.any(0)
        assert 0 < unseen.sum() < len(unseen), "the seed must leave some pixels seen by no query"
        pixels.levels[0].flatten(2)[:, :, unseen] += 100
        torch.testing.assert_close(decoder(pixels)[1][0], before)
        pixels.levels[0].flatten(2)[:, :, ~unseen] += 1
        assert not torch.allclose(decoder(pixels)[1][0], before)


def test_levels_are_visited_in_a_round_robin():
    decoder, pixels = _decoder(layers=5), _pixels()
    lengths = []
    for layer in decoder.layers:
        layer.cross_attn.register_forward_pre_hook(
            lambda module, inputs: lengths.append(inputs[1].shape[1])
        )
    decoder(pixels)
    assert lengths == [6, 24, 96, 6, 24]


def test_attention_masks_carry_no_gradient():
    decoder, pixels = _decoder(layers=1), _pixels()
    pixels.mask_features.requires_grad_()
    logits, embedding = decoder(pixels)[-1]
    (logits.sum() + embedding.sum()).backward()
    assert pixels.mask_features.grad is None


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="16 is not a multiple of 3"):
        MaskedAttentionDecoder(
            num_classes=5, queries=6, dim=16, mask_dim=8, levels=3, layers=1, heads=3, ffn_dim=4
        )


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"TRANSFORMER_DECODER\.NAME.*MaskedAttentionDecoder"):
        TRANSFORMER_DECODERS.get("Nothing")


def test_without_masks_every_query_looks_everywhere():
    plain, masked = _decoder(masked=False), _decoder()
    plain.load_state_dict(masked.state_dict())
    masked._foreground = lambda embedding, thumbnail: torch.ones(
        2, 6, thumbnail.shape[2] * thumbnail.shape[3], dtype=torch.bool
    )
    pixels = _pixels()
    for found, expected in zip(plain(pixels), masked(pixels), strict=True):
        torch.testing.assert_close(found, expected)
    del masked._foreground
    assert not torch.allclose(masked(pixels)[-1][1], plain(pixels)[-1][1])


def test_levels_of_another_width_are_refused(tiny_config):
    cfg = tiny_config("mask2former_R50_coco_panoptic")
    with pytest.raises(ValueError, match=r"HIDDEN_DIM 64, but PIXEL_DECODER\.NAME .* \[64, 320\]"):
        MaskedAttentionDecoder(cfg, [64, 320])
