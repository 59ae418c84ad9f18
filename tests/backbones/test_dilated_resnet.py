"""The dilated ResNet of DETR's DC5 models: torchvision's, with Detectron2's names."""

import pytest
import torch
from detectron2.modeling import build_backbone
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d

from mask_transformers import model_zoo
from mask_transformers.backbones.frozen_norm import fold_frozen_norms
from mask_transformers.checkpoint.name_maps import to_native_names

NAME = "mask2former_R50_coco_panoptic"
STAGES = {f"layer{i}": f"res{i + 1}" for i in range(1, 5)}
KEYS = {"MODEL.BACKBONE.NAME": "build_dilated_resnet_backbone", "MODEL.RESNETS.RES5_DILATION": 2}


def _config(keys=()):
    cfg = model_zoo.get_config(NAME)
    cfg.MODEL.DEVICE = "cpu"
    for key, value in {**KEYS, **dict(keys)}.items():
        cfg.merge_from_list([key, value])
    return cfg


@pytest.fixture(scope="module")
def models():
    """Ours and torchvision's, with the same random weights and statistics of frozen norms."""
    torch.manual_seed(0)
    theirs = resnet50(
        replace_stride_with_dilation=[False, False, True], norm_layer=FrozenBatchNorm2d
    )
    del theirs.fc
    with torch.no_grad():
        for name, value in theirs.state_dict().items():
            if "bn" in name or "downsample.1." in name:
                value.uniform_(0.5, 1.0)
    ours = build_backbone(_config()).eval()
    state = {f"backbone.0.body.{name}": value for name, value in theirs.state_dict().items()}
    native = to_native_names("DETR", state)
    ours.load_state_dict({name.removeprefix("backbone."): v for name, v in native.items()})
    return ours, IntermediateLayerGetter(theirs, STAGES).eval()


@pytest.mark.parametrize("size", [(64, 96), (97, 65), (33, 50), (1, 1)])
@torch.no_grad()
def test_features_are_those_of_torchvision(models, size):
    ours, theirs = models
    images = torch.randn(2, 3, *size)
    found, expected = ours(images), theirs(images)
    assert found["res5"].shape[-2:] == found["res4"].shape[-2:]
    for name in STAGES.values():
        scale = expected[name].abs().max()
        torch.testing.assert_close(found[name] / scale, expected[name] / scale, atol=1e-5, rtol=0)


@torch.no_grad()
def test_folded_norms_keep_the_dilation(models):
    images = torch.randn(1, 3, 64, 64)
    ours, _ = models
    expected = ours(images)["res5"]
    folded = build_backbone(_config()).eval()
    folded.load_state_dict(ours.state_dict())
    fold_frozen_norms(folded)
    found = folded(images)["res5"]
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-5, rtol=0)


def test_strides(tiny_config):
    backbone = build_backbone(tiny_config(NAME, KEYS))
    strides = {name: shape.stride for name, shape in backbone.output_shape().items()}
    assert strides == {"res2": 4, "res3": 8, "res4": 16, "res5": 16}
    assert [block.conv2.dilation[0] for block in backbone.res5] == [1, 2, 2]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("RES5_DILATION", 1, r"MODEL\.RESNETS\.RES5_DILATION 2, not 1"),
        ("RES5_DILATION", 4, r"MODEL\.RESNETS\.RES5_DILATION 2, not 4"),
        ("DEPTH", 18, r"MODEL\.RESNETS\.DEPTH 50 or more, not 18"),
        ("OUT_FEATURES", ["res4"], r"MODEL\.RESNETS\.OUT_FEATURES with res5, not \['res4'\]"),
    ],
)
def test_what_it_cannot_be(tiny_config, key, value, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(tiny_config(NAME, {**KEYS, f"MODEL.RESNETS.{key}": value}))
