"""Detectron2's ResNet with DeepLab's stem, under the keys of this package."""

import pytest
import torch
from detectron2.modeling import build_backbone

from mask_transformers import model_zoo

NAME = "mask2former_R50_ade20k_semantic"
KEYS = {"MODEL.BACKBONE.NAME": "build_resnet_deeplab_backbone"}


def test_the_config_of_R101c_has_the_stem_and_the_multi_grid(tiny_config):
    keys = {"MODEL.RESNETS.STEM_OUT_CHANNELS": 8}
    backbone = build_backbone(tiny_config("maskformer_R101c_ade20k_semantic", keys))
    assert [backbone.stem.conv1.kernel_size, backbone.stem.conv3.kernel_size] == [(3, 3)] * 2
    assert [block.conv2.dilation[0] for block in backbone.res5] == [1, 2, 4]
    assert len(backbone.res4) == 23
    assert {n: s.stride for n, s in backbone.output_shape().items()} == {
        "res2": 4,
        "res3": 8,
        "res4": 16,
        "res5": 32,
    }


def test_the_published_weights_are_those_of_the_stem():
    assert model_zoo.get_config("maskformer_R101c_cityscapes_semantic").MODEL.WEIGHTS == (
        "detectron2://DeepLab/R-103.pkl"
    )


@pytest.mark.parametrize("stem", ["deeplab", "basic"])
def test_a_model_predicts_with_it(tiny_model, make_record, stem):
    model = tiny_model(NAME, {**KEYS, "MODEL.RESNETS.STEM_TYPE": stem}).eval()
    with torch.no_grad():
        [result] = model([{"image": make_record()["image"]}])
    assert result["sem_seg"].isfinite().all()
