"""Names of the official DETR release; whole lists of them are in test_manifests.py."""

import pytest
import torch

from mask_transformers.checkpoint import load_official_state_dict
from mask_transformers.checkpoint.name_maps import native_name, to_native_names

FACTS = {
    "backbone.0.body.conv1.weight": "backbone.stem.conv1.weight",
    "backbone.0.body.bn1.running_var": "backbone.stem.conv1.norm.running_var",
    "backbone.0.body.layer1.0.downsample.0.weight": "backbone.res2.0.shortcut.weight",
    "backbone.0.body.layer3.22.bn3.bias": "backbone.res4.22.conv3.norm.bias",
    "backbone.0.body.layer4.0.downsample.1.weight": "backbone.res5.0.shortcut.norm.weight",
    "input_proj.bias": "input_proj.bias",
    "transformer.encoder.layers.5.self_attn.in_proj_weight": "encoder.5.self_attn.in_proj_weight",
    "transformer.decoder.layers.0.self_attn.out_proj.bias": (
        "decoder.layers.0.self_attn.out_proj.bias"
    ),
    "transformer.decoder.layers.3.multihead_attn.in_proj_bias": (
        "decoder.layers.3.cross_attn.in_proj_bias"
    ),
    "transformer.decoder.norm.weight": "decoder.norm.weight",
    "query_embed.weight": "decoder.query_embed.weight",
    "class_embed.bias": "class_embed.bias",
    "bbox_embed.layers.2.weight": "box_embed.layers.2.weight",
}
MASK_FACTS = {
    "bbox_attention.k_linear.bias": "mask_head.attention.k_linear.bias",
    "mask_head.lay1.weight": "mask_head.convs.0.weight",
    "mask_head.gn5.bias": "mask_head.norms.4.bias",
    "mask_head.adapter3.weight": "mask_head.adapters.2.weight",
    "mask_head.out_lay.weight": "mask_head.out.weight",
}


@pytest.mark.parametrize("prefix", ["", "detr."])
def test_names_of_the_detector(prefix):
    """Files of models with a mask head have it inside, and hold the same detector."""
    assert {name: native_name("DETR", prefix + name) for name in FACTS} == FACTS


def test_names_of_the_mask_head():
    assert {name: native_name("DETR", name) for name in MASK_FACTS} == MASK_FACTS


@pytest.mark.parametrize("ours", [*FACTS.values(), *MASK_FACTS.values()])
def test_our_names_stay(ours):
    assert native_name("DETR", ours) == ours


def test_what_no_model_needs_is_left_out():
    names = ["criterion.empty_weight", "detr.backbone.0.body.layer1.0.bn1.num_batches_tracked"]
    names += ["backbone.0.body.bn1.num_batches_tracked"]
    assert to_native_names("DETR", dict.fromkeys(names)) == {}


def test_a_detector_loads_into_a_model_without_a_mask_head(tiny_model):
    with_masks = tiny_model("detr_R50_coco_panoptic")
    boxes = tiny_model("detr_R50_coco", {"MODEL.MASK_TRANSFORMER.NUM_CLASSES": 250})
    report = load_official_state_dict(boxes, with_masks.state_dict())
    assert all(name.startswith("mask_head.") for name in report.unexpected)
    state = with_masks.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in boxes.state_dict().items())
