import pytest
import torch

from mask_transformers.layers.conv_norm import resize_aligned, resize_corners
from mask_transformers.meta_arch.semantic_head import SemanticHead

CHANNELS, CLASSES = (6, 4, 3), 5


@pytest.fixture
def head():
    return SemanticHead(CHANNELS, CLASSES, dim=8)


def _features(images=2, sizes=((3, 4), (9, 13), (17, 25))):
    return [torch.randn(images, c, *size) for c, size in zip(CHANNELS, sizes, strict=True)]


@pytest.mark.parametrize(
    "sizes", [((3, 4), (9, 13), (17, 25)), ((1, 1), (4, 4), (8, 8)), ((2, 3), (8, 12), (16, 24))]
)
def test_class_logits_at_the_finest_stride(head, sizes):
    assert head(*_features(sizes=sizes)).shape == (2, CLASSES + 1, *sizes[-1])


def test_widths_of_the_published_head():
    head = SemanticHead((2048, 512, 256), 133)
    shapes = {name: tuple(x.shape) for name, x in head.state_dict().items()}
    assert shapes["aspp.out.conv.weight"] == (256, 1280, 1, 1)
    assert shapes["fuse8.project.conv.weight"] == (64, 512, 1, 1)
    assert shapes["fuse4.project.conv.weight"] == (32, 256, 1, 1)
    assert shapes["fuse4.depthwise.conv.weight"] == (288, 1, 5, 5)
    assert shapes["classes.weight"] == (134, 256, 1, 1)


@pytest.mark.parametrize("resize", [resize_aligned, resize_corners])
def test_coarse_maps_are_enlarged_and_joined_with_finer_ones(resize):
    head = SemanticHead(CHANNELS, CLASSES, dim=8, resize=resize).eval()
    coarse, middle, fine = _features()
    x = head.aspp(coarse)
    for fuse, feature in ((head.fuse8, middle), (head.fuse4, fine)):
        joined = [resize(x, feature.shape[2:]), fuse.project(feature)]
        x = fuse.pointwise(fuse.depthwise(torch.cat(joined, 1)))
    expected = head.classes(head.pointwise(head.depthwise(x)))
    torch.testing.assert_close(head(coarse, middle, fine), expected)


def test_every_parameter_learns(head):
    head(*_features()).square().sum().backward()
    missed = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    assert missed == []


def test_batched_equals_single(head):
    features = _features(3)
    batched = head.eval()(*features)
    alone = [head(*(x[i : i + 1] for x in features)) for i in range(3)]
    torch.testing.assert_close(batched, torch.cat(alone), rtol=1e-4, atol=1e-5)
