import math

import pytest
import torch

from mask_transformers.transformer_decoders.mask_predictor import VOID_PRIOR, MaskPredictor

CLASSES, QUERIES, SIZE = 6, 5, (4, 7)


@pytest.fixture
def predictor():
    return MaskPredictor(3, 8, CLASSES, mask_dim=4)


def _inputs(images=2):
    queries = [torch.randn(images, 8, QUERIES) for _ in range(2)]
    return *queries, torch.randn(images, 3, *SIZE)


def test_shapes(predictor):
    prediction = predictor(*_inputs())
    assert prediction.class_logits.shape == (2, QUERIES, CLASSES + 1)
    assert prediction.mask_logits.shape == (2, QUERIES, *SIZE)
    assert prediction.pixel_features.shape == (2, 4, *SIZE)


def test_pixel_features_have_length_one(predictor):
    lengths = predictor(*_inputs()).pixel_features.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_no_object_is_as_probable_as_its_prior_where_queries_say_nothing(predictor):
    torch.nn.init.zeros_(predictor.class_embed.weight)
    probabilities = predictor(*_inputs()).class_logits.softmax(-1)
    torch.testing.assert_close(probabilities[..., -1], torch.full((2, QUERIES), VOID_PRIOR))
    assert predictor.void_bias == pytest.approx(math.log(9 * CLASSES))


def test_masks_are_products_under_one_norm(predictor):
    _, mask_query, _ = inputs = _inputs()
    prediction = predictor(*inputs)
    embedding = predictor.mask_embed(mask_query)
    products = torch.einsum("ncq,nchw->nqhw", embedding, prediction.pixel_features)
    spread = (products.var(unbiased=False) + 1e-3).sqrt()
    torch.testing.assert_close(
        prediction.mask_logits, 0.1 * (products - products.mean()) / spread, rtol=1e-4, atol=1e-5
    )
    assert predictor.mask_norm.weight.tolist() == [pytest.approx(0.1)]


def test_classes_and_masks_have_queries_of_their_own(predictor):
    class_query, mask_query, pixels = _inputs()
    predictor.eval()
    before = predictor(class_query, mask_query, pixels)
    other_class = predictor(class_query + 1, mask_query, pixels)
    other_mask = predictor(class_query, mask_query.flip(2), pixels)
    assert torch.equal(other_class.mask_logits, before.mask_logits)
    assert not torch.allclose(other_class.class_logits, before.class_logits)
    assert torch.equal(other_mask.class_logits, before.class_logits)
    torch.testing.assert_close(other_mask.mask_logits, before.mask_logits.flip(1))


def test_pixels_see_their_neighbours_up_to_two_pixels_away(predictor):
    class_query, mask_query, _ = _inputs(1)
    pixels = torch.randn(1, 3, 9, 9)
    changed = pixels.clone()
    changed[:, :, 4, 4] += 1
    predictor.eval()
    first, second = (
        predictor(class_query, mask_query, x).pixel_features for x in (pixels, changed)
    )
    moved = (first - second).abs().amax((0, 1)) > 1e-7
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[2:7, 2:7] = True
    assert torch.equal(moved, expected)


def test_autocast(predictor):
    inputs = _inputs()
    exact = predictor.eval()(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = predictor(*inputs)
    assert (found.mask_logits - exact.mask_logits).norm() < 0.1 * exact.mask_logits.norm()
    lengths = found.pixel_features.float().norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=2e-2, atol=0)
