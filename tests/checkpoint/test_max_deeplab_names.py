"""Names and layouts of the published checkpoints of MaX-DeepLab."""

import sys

import numpy as np
import pytest
import torch
from deeplab2_variables import NAMES, manifest, variables
from detectron2.modeling import build_model

from mask_transformers import model_zoo
from mask_transformers.checkpoint import CheckpointMismatchError, load_official_state_dict
from mask_transformers.checkpoint.name_maps import native_name, to_native_names

SYSTEM = "MaXDeepLab"
S = "max_deeplab_S_coco_panoptic"
_STAGE, _OURS = "encoder/_stage5/", "backbone.stages.res5."
FACTS = {
    "encoder/_stem/_conv3_bn/_batch_norm/gamma": "backbone.stem.2.norm.weight",
    "encoder/_stem/_conv/kernel": "backbone.stem.0.conv.weight",
    "encoder/_stage1/_block3/_conv2_bn/_conv/kernel": (
        "backbone.stages.res1.blocks.2.conv2.conv.weight"
    ),
    _STAGE + "_block1/_shortcut/_conv/kernel": _OURS + "blocks.0.shortcut.conv.weight",
    _STAGE + "_block2/_attention/_width_axis/qkv_kernel": (
        _OURS + "blocks.1.attention.width.qkv.weight"
    ),
    _STAGE + "_block2/_attention/_height_axis/_value_rpe/embeddings": (
        _OURS + "blocks.1.attention.height.value_position.weight"
    ),
    _STAGE + "_block3_transformer/_pixel_qkv_conv_bn/_conv/kernel": (
        _OURS + "transformers.2.pixel_qkv.conv.weight"
    ),
    _STAGE + "_block3_transformer/_memory_attention/_batch_norm_retrieved_value/moving_mean": (
        _OURS + "transformers.2.memory_attention.output_norm.running_mean"
    ),
    "encoder/_stage5_extra/_block1/_conv1_bn_act/_conv/kernel": (
        "decoder.first.blocks.0.conv1.conv.weight"
    ),
    "encoder/_decoder_stage4_extra/_block2/_conv1_bn_act/_conv/kernel": (
        "decoder.first.blocks.1.conv1.conv.weight"
    ),
    "encoder/_decoder_stage4/_block1/_conv1_bn_act/_conv/kernel": (
        "backbone.steps.3.stage.blocks.0.conv1.conv.weight"
    ),
    "encoder/_decoder_stage4_resized_fuse/_strided_conv_bn1/_conv/kernel": (
        "backbone.steps.3.fuse.project.conv.weight"
    ),
    "encoder/_decoder_stage2_extra/_block1/_conv3_bn/_batch_norm/beta": (
        "decoder.steps.1.stage.blocks.0.conv3.norm.bias"
    ),
    "encoder/_decoder_stage10_extra_resized_fuse/_resized_conv_bn1/_batch_norm/beta": (
        "decoder.steps.5.fuse.project.norm.bias"
    ),
    "encoder/_class_feature_extra/_conv/kernel": "class_projection.conv.weight",
    "encoder/memory_feature": "memory.weight",
    "pixel_space_mask_batch_norm/gamma": "predictor.mask_norm.weight",
    "semantic_last_layer/bias": "semantic_head.classes.bias",
}


def test_names():
    assert {name: native_name(SYSTEM, name) for name in FACTS} == FACTS
    keys = {f"{name}/.ATTRIBUTES/VARIABLE_VALUE": ours for name, ours in FACTS.items()}
    assert {name: native_name(SYSTEM, name) for name in keys} == keys


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_is_covered_and_none_left_over(name):
    cfg = model_zoo.get_config(name)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):  # no memory, no time for random numbers
        model = build_model(cfg)
        official = {key: torch.empty(shape) for key, shape in manifest(name).items()}
    native = to_native_names(SYSTEM, official)
    assert {key: tuple(value.shape) for key, value in native.items()} == {
        key: tuple(value.shape) for key, value in model.state_dict().items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_manifests_are_those_of_the_official_models(shared, name):
    lines = (shared / f"parity/manifests/{name}.tsv").read_text().splitlines()
    official = {line.split("\t")[3]: line.split("\t")[1] for line in lines}
    found = {key: ",".join(map(str, shape)) for key, shape in manifest(name).items()}
    assert found == official


@pytest.mark.parametrize("name", NAMES)
def test_values_arrive_where_they_belong(name, tiny_model):
    model, other = tiny_model(name), tiny_model(name)
    state, theirs = model.state_dict(), variables(name, model)
    report = load_official_state_dict(other, theirs)
    assert not report.unexpected
    loaded = other.state_dict()
    assert all(torch.equal(state[key], loaded[key]) for key in state)
    theirs.pop("encoder/memory_feature")
    with pytest.raises(CheckpointMismatchError, match=r"missing.*memory\.weight"):
        load_official_state_dict(other, theirs)


def test_a_norm_of_heads_has_several_sides():
    value = np.arange(48.0).reshape(2, 1, 4, 1, 6)
    key = "encoder/_stage4/_block2/_attention/_height_axis/_batch_norm_retrieved_output/gamma"
    [(name, found)] = to_native_names(SYSTEM, {key: value}).items()
    assert name == "backbone.stages.res4.blocks.1.attention.height.output_norm.weight"
    assert found.tolist() == list(range(48))


def test_outputs_are_the_official_ones(shared):
    sys.path.insert(0, str(shared / "parity"))
    import fill

    golden = np.load(shared / f"parity/golden/{S}.npz")
    model = model_zoo.build(S)
    weights = fill.tensorflow_checkpoint(shared / f"parity/manifests/{S}.tsv")
    load_official_state_dict(model, weights)
    image = torch.from_numpy(golden["image"]).permute(2, 0, 1).float()
    with torch.no_grad():
        outputs = model.raw_outputs(((image - 127.5) / 127.5)[None])
    found = {
        "logits": outputs["pred_logits"][0],
        "masks": outputs["pred_masks"][0, :, ::4, ::4],
        "pixel_feature": outputs["pixel_feature"][0, :, ::8, ::8],
        "semantic": outputs["semantic"][0, :, ::8, ::8],
    }
    for name, value in found.items():
        wanted = golden[name]
        error = np.linalg.norm(value.numpy() - wanted) / np.linalg.norm(wanted - wanted.mean())
        assert error < 1e-4, name
