import pytest
import torch
from torch import nn

from mask_transformers.heads import predict_masks, predict_projected_masks
from mask_transformers.structures import PixelFeatures


@pytest.fixture
def features():
    projection = nn.Conv2d(5, 8, 3, padding=1)
    return PixelFeatures(torch.randn(2, 5, 6, 9), [torch.randn(2, 4, 2, 3)], projection)


@pytest.mark.parametrize("queries", [0, 1, 8, 20])
def test_masks_are_products_with_the_mask_features(features, queries):
    embedding = torch.randn(2, queries, 8)
    expected = predict_masks(embedding, features.projection(features.pixels))
    torch.testing.assert_close(features.predict_masks(embedding), expected)
    with torch.no_grad():
        masks = features.predict_masks(embedding)
        projected = predict_projected_masks(embedding, features.pixels, features.projection)
    assert masks.shape == (2, queries, 6, 9)
    torch.testing.assert_close(masks, expected)
    torch.testing.assert_close(projected, expected)


def test_few_queries_need_no_mask_features(features):
    with torch.no_grad():
        features.predict_masks(torch.randn(2, 8, 8))
        assert "mask_features" not in vars(features)
        features.predict_masks(torch.randn(2, 9, 8))
        assert "mask_features" in vars(features)


def test_mask_features_are_computed_once(features):
    assert features.mask_features is features.mask_features
    plain = PixelFeatures(features.pixels, [])
    assert plain.mask_features is features.pixels


def test_the_features_of_one_image(features):
    embedding = torch.randn(2, 3, 8)
    with torch.no_grad():
        expected = features.predict_masks(embedding)
        for i in range(2):
            image = features.image(i)
            torch.testing.assert_close(image.predict_masks(embedding[i, None])[0], expected[i])
            assert torch.equal(image.levels[0][0], features.levels[0][i])
