"""The backbone of the small MaX-DeepLab models: a trunk of timm, then MaX-DeepLab's last stage."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_model
from torch import nn

from mask_transformers.backbones.max_timm import MaXTimm
from mask_transformers.backbones.timm import TimmBackbone
from mask_transformers.layers.conv_norm import SyncNorm
from mask_transformers.layers.residual_blocks import AxialBlock

SMALL = "max_deeplab_small_shapes_panoptic"
QUERIES = 5
CHANNELS = {"res2": 32, "res3": 64, "res4": 128, "res5": 256}  # 4, 8, 16 and 32 times the WIDTH 8


@pytest.fixture
def backbone(tiny_config):
    """As after some training: no branch of the last stage ends in zeros."""
    torch.manual_seed(0)
    model = BACKBONE_REGISTRY.get("build_max_timm_backbone")(tiny_config(SMALL), ShapeSpec(3))
    for part in model.modules():
        if isinstance(part, SyncNorm):
            nn.init.uniform_(part.weight, 0.5, 1)
            nn.init.normal_(part.bias, std=0.1)
    return model.eval()


def _inputs(backbone, size=(33, 49), images=1):
    return torch.randn(images, 3, *size), torch.randn(images, backbone.builder.memory_dim, QUERIES)


@pytest.mark.parametrize("size", [(33, 49), (65, 17), (16, 40), (1, 1)])
def test_features_keep_corners_on_corners(backbone, size):
    images, memory = _inputs(backbone, size, 2)
    with torch.no_grad():
        pixels, after, features = backbone(images, memory)
    assert after.shape == memory.shape
    assert {stride: tuple(x.shape) for stride, x in features.items()} == {
        stride: (2, channels, *(-(-side // stride) for side in size))
        for stride, channels in ((4, 32), (8, 64), (16, 256))
    }
    assert pixels is features[16]


def test_built_from_a_config(backbone, tiny_config):
    assert isinstance(backbone, MaXTimm)
    assert isinstance(backbone.trunk, TimmBackbone)
    cfg = tiny_config(SMALL, {"MODEL.MAX_RESNET.BLOCKS": [1, 1, 1, 3]})
    more = MaXTimm(cfg)
    assert [type(block) for block in more.last.blocks] == [AxialBlock] * 3
    assert len(more.last.transformers) == 3
    shapes = more.output_shape()
    assert {name: shape.channels for name, shape in shapes.items()} == CHANNELS
    assert [shape.stride for shape in shapes.values()] == [4, 8, 16, 16]


def test_memory_and_pixels_reach_each_other(backbone):
    images, memory = _inputs(backbone)
    other_images, other_memory = _inputs(backbone)
    with torch.no_grad():
        pixels, after, features = backbone(images, memory)
        told, _, same = backbone(images, other_memory)
        _, seen, _ = backbone(other_images, memory)
    assert not torch.allclose(pixels, told, atol=1e-4)
    assert not torch.allclose(after, seen, atol=1e-4)
    for stride in (4, 8):  # what comes before does not know the memory
        assert torch.equal(features[stride], same[stride])


def test_gradients_reach_every_parameter(backbone):
    images, memory = _inputs(backbone, images=2)
    pixels, after, features = backbone.train()(images, memory.requires_grad_())
    sum(x.square().mean() for x in (pixels, after, features[4], features[8])).backward()
    assert memory.grad is not None
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
        assert parameter.grad is not None or not parameter.requires_grad, name


STAGES = "MODEL.MAX_RESNET.TRANSFORMER_STAGES"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.TIMM.OUT_FEATURES", ["res2", "res3", "res4", "res5"], r"MODEL\.TIMM\.OUT_FEATURES"),
        ("MODEL.TIMM.OUT_FEATURES", ["res3", "res4"], r"be \['res2', 'res3', 'res4'\], not"),
        ("MODEL.MAX_RESNET.STACKS", 1, r"STACKS 0 and TRANSFORMER_STAGES .*, not 1 and"),
        (STAGES, ["res4", "res5"], r"TRANSFORMER_STAGES \['res5'\], not 0 and \['res4', 'res5'\]"),
    ],
)
def test_what_a_trunk_cannot_do_is_refused(tiny_config, key, value, message):
    with pytest.raises(ValueError, match=message):
        build_model(tiny_config(SMALL, {key: value}))
