"""Checkpoints of DeepLab2: names, layouts, strictness, and the whole way through their files."""

import re

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from mask_transformers import model_zoo
from mask_transformers.backbones.initial_weights import without_initial_weights
from mask_transformers.checkpoint import (
    CheckpointMismatchError,
    MaskTransformerCheckpointer,
    load_official_state_dict,
    read_state_dict,
)
from mask_transformers.checkpoint.name_maps import native_name, to_native_names
from mask_transformers.prediction import build_predictor

R50 = "kmax_R50_coco_panoptic"
SYSTEM = "KMaXDeepLab"
HEADS = 8
END = "/.ATTRIBUTES/VARIABLE_VALUE"


def _normed(ours, theirs, conv="_conv"):
    """The same for a convolution and its norm."""
    return [(ours + r"\.conv", f"{theirs}/{conv}"), (ours + r"\.norm", theirs + "/_batch_norm")]


def _separable(ours, theirs):
    return [
        *_normed(ours + "depthwise", theirs + "/_conv1_bn_act/_depthwise", "_depthwise_conv"),
        *_normed(ours + "pointwise", theirs + "/_conv1_bn_act/_pointwise"),
    ]


# Our module → DeepLab2's, the other way round than checkpoint/name_maps/deeplab2.py. Groups are
# {0}, {1}, ..., and one more than the numbers in them {A}, {B}, ...
_ENCODER, _DECODER = "encoder/_pixel_encoder/", "encoder/_pixel_decoder/"
_QUERY = "encoder/_transformer_decoder/"
_LAYER = r"transformer_decoder\.layers\.(\d+)\."
_THEIR_LAYER = _QUERY + "_kmax_transformer_layers/{0}/"
_STAGE, _THEIR_STAGE = r"pixel_decoder\.stages\.(\d+)\.(\d+)\.", _DECODER + "_stages/{0}/_block{B}/"
_AXIS, _THEIR_AXIS = _STAGE + r"attention\.(height|width)\.", _THEIR_STAGE + "_attention/_{2}_axis"
_RES, _THEIR_RES = r"backbone\.res(\d)\.(\d+)\.", _ENCODER + "_stage{0}/_block{B}/"
_NEXT = r"backbone\.stages\.(\d)\.(\d+)"
_THEIR_NEXT = _ENCODER + "_stages/{0}/layer_with_weights-{1}"


def _heads(ours, theirs):
    return [
        *_separable(ours, theirs + "pixel_space_head/conv_block"),
        (ours + r"pixel_out\.conv", theirs + "pixel_space_head/final_conv"),
        (ours + r"pixel_out\.norm", theirs + "pixel_space_feature_batch_norm"),
        *_normed(ours + "mask_embed", theirs + "transformer_mask_head"),
        (ours + "class_embed", theirs + "transformer_class_head/_conv"),
        (ours + "mask_norm", theirs + "pixel_space_mask_batch_norm"),
    ]


THEIRS = [
    (r"backbone\.stem\.conv1", _ENCODER + "_stem/_conv"),
    (r"backbone\.stem\.conv1\.norm", _ENCODER + "_stem/_batch_norm"),
    (_RES + r"conv([12])", _THEIR_RES + "_conv{2}_bn_act/_conv"),
    (_RES + r"conv([12])\.norm", _THEIR_RES + "_conv{2}_bn_act/_batch_norm"),
    (_RES + "conv3", _THEIR_RES + "_conv3_bn/_conv"),
    (_RES + r"conv3\.norm", _THEIR_RES + "_conv3_bn/_batch_norm"),
    (_RES + "shortcut", _THEIR_RES + "_shortcut/_conv"),
    (_RES + r"shortcut\.norm", _THEIR_RES + "_shortcut/_batch_norm"),
    (
        r"backbone\.downsample_layers\.(\d)\.(\d)",
        _ENCODER + "_downsample_layers/{0}/layer_with_weights-{1}",
    ),
    (_NEXT, _THEIR_NEXT),
    (_NEXT + r"\.conv_dw", _THEIR_NEXT + "/_dwconv"),
    (_NEXT + r"\.norm", _THEIR_NEXT + "/_norm"),
    (_NEXT + r"\.mlp\.fc([12])", _THEIR_NEXT + "/_pwconv{2}"),
    (r"pixel_decoder\.in_norms\.(\d)", _DECODER + "_in_norms/{0}"),
    *_normed(r"pixel_decoder\.fuses\.(\d)\.low", _DECODER + "_resized_fuses/{0}/_resized_conv_bn1"),
    *_normed(r"pixel_decoder\.fuses\.(\d)\.high", _DECODER + "_resized_fuses/{0}/_conv_bn2"),
    *_normed(_STAGE + "conv([12])", _THEIR_STAGE + "_conv{2}_bn_act"),
    *_normed(_STAGE + "conv3", _THEIR_STAGE + "_conv3_bn"),
    *_normed(_STAGE + "shortcut", _THEIR_STAGE + "_shortcut"),
    (_AXIS + "qkv", _THEIR_AXIS),
    (_AXIS + "qkv_norm", _THEIR_AXIS + "/_batch_norm_qkv"),
    (_AXIS + "similarity_norm", _THEIR_AXIS + "/_batch_norm_similarity"),
    (_AXIS + "output_norm", _THEIR_AXIS + "/_batch_norm_retrieved_output"),
    (_AXIS + r"(query|key|value)_position", _THEIR_AXIS + "/_{3}_rpe"),
    (r"transformer_decoder\.centers", _QUERY + "_cluster_centers"),
    *_normed(r"transformer_decoder\.(class|mask)_projection", _QUERY + "_{0}_embedding_projection"),
    *_normed(_LAYER + "query_in", _THEIR_LAYER + "_query_conv1_bn_act"),
    *_normed(_LAYER + "pixel_in", _THEIR_LAYER + "_pixel_conv1_bn_act"),
    *_normed(_LAYER + "query_qkv", _THEIR_LAYER + "_query_qkv_conv_bn"),
    *_normed(_LAYER + "pixel_value", _THEIR_LAYER + "_pixel_v_conv_bn"),
    *_normed(_LAYER + "query_out", _THEIR_LAYER + "_query_conv3_bn"),
    *_normed(_LAYER + "ffn_in", _THEIR_LAYER + "_query_ffn_conv1_bn_act"),
    *_normed(_LAYER + "ffn_out", _THEIR_LAYER + "_query_ffn_conv2_bn"),
    *_normed(_LAYER + "kmeans_out", _THEIR_LAYER + "_kmeans_query_conv3_bn"),
    (_LAYER + "kmeans_norm", _THEIR_LAYER + "_kmeans_query_batch_norm_retrieved_value"),
    (
        _LAYER + r"self_attention\.similarity_norm",
        _THEIR_LAYER + "_query_self_attention/_batch_norm_similarity",
    ),
    (
        _LAYER + r"self_attention\.output_norm",
        _THEIR_LAYER + "_query_self_attention/_batch_norm_retrieved_value",
    ),
    *_heads(_LAYER + r"predictor\.", _THEIR_LAYER + "_auxiliary_clustering_predictor/_"),
    *_heads(r"transformer_decoder\.predictor\.", ""),
    *_normed(r"semantic_head\.aspp\.point", "semantic_decoder/_aspp/_conv_bn_act"),
    *_normed(
        r"semantic_head\.aspp\.dilated\.(\d)",
        "semantic_decoder/_aspp/_aspp_conv{A}/_conv_bn_act",
    ),
    *_normed(r"semantic_head\.aspp\.pool", "semantic_decoder/_aspp/_aspp_pool/_conv_bn_act"),
    *_normed(r"semantic_head\.aspp\.out", "semantic_decoder/_aspp/_proj_conv_bn_act"),
    *_normed(r"semantic_head\.fuse8\.project", "semantic_decoder/_low_level_conv1"),
    *_normed(r"semantic_head\.fuse4\.project", "semantic_decoder/_low_level_conv2"),
    *_separable(r"semantic_head\.fuse8\.", "semantic_decoder/_fusion_conv1"),
    *_separable(r"semantic_head\.fuse4\.", "semantic_decoder/_fusion_conv2"),
    *_separable(r"semantic_head\.", "semantic_head_without_last_layer"),
    (r"semantic_head\.classes", "semantic_last_layer"),
]


def _their_module(ours):
    for pattern, theirs in THEIRS:
        if match := re.fullmatch(pattern, ours):
            groups = match.groups()
            more = {c: int(g) + 1 for c, g in zip("ABCD", groups, strict=False) if g.isdigit()}
            return theirs.format(*groups, **more)
    raise AssertionError(f"no name for {ours}")


def _norm_sides(name, size):
    """Norms of the heads of attention have a side for each of what ours has in a row."""
    if "_axis/_batch_norm_similarity" in name:
        return 3, 1, HEADS, 1, 1
    if "_batch_norm_retrieved_output" in name:
        return 2, 1, HEADS, 1, size // (2 * HEADS)
    return (1, HEADS, 1, size // HEADS) if "_attention/_batch_norm_r" in name else (size,)


def _their_variables(name, module):
    """Variables in DeepLab2 of one of our modules, in TensorFlow's layout."""
    theirs = _their_module(name)
    if name.endswith("centers"):
        return {theirs: module.weight.T[None]}
    if hasattr(module, "gamma"):
        return {theirs + "/gamma": module.gamma}
    weight, bias = module.weight, getattr(module, "bias", None)
    if isinstance(module, nn.Embedding):
        return {theirs + "/embeddings": weight}
    if isinstance(module, nn.LayerNorm | nn.modules.batchnorm._BatchNorm):
        parts = {"gamma": weight, "beta": bias}
        if not isinstance(module, nn.LayerNorm):
            parts |= {"moving_mean": module.running_mean, "moving_variance": module.running_var}
        sides = _norm_sides(theirs, len(weight))
        return {f"{theirs}/{part}": value.reshape(sides) for part, value in parts.items()}
    if name.endswith(".qkv"):
        return {theirs + "/qkv_kernel": weight[..., 0].T}
    variables = {} if bias is None else {theirs + "/bias": bias}
    if getattr(module, "groups", 1) > 1:
        return {theirs + "/depthwise_kernel": weight.permute(2, 3, 0, 1), **variables}
    if name.endswith((".pixel_in.conv", ".pixel_value.conv")):
        weight = weight[..., 0]  # there over a row of pixels
    order = (*range(2, weight.dim()), 1, 0)
    return {theirs + "/kernel": weight.permute(order), **variables}


def _to_tensorflow(model):
    """The checkpoint of ``model`` in DeepLab2, without what ends names."""
    variables = {}
    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            variables |= _their_variables(name, module)
    return {name: value.detach().numpy() for name, value in variables.items()}


@pytest.fixture(params=["build_kmax_resnet_backbone", "build_convnext_backbone"])
def models(request, tiny_model):
    """One with another value for every number, and another one."""
    source, target = (tiny_model(R50, {"MODEL.BACKBONE.NAME": request.param}) for _ in range(2))
    for tensor in source.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_()
    return source, target


def _same(found, wanted):
    assert found.keys() == wanted.keys()
    return all(torch.equal(value, wanted[name]) for name, value in found.items())


@pytest.mark.parametrize("end", ["", END])
def test_every_value_finds_its_place(models, end):
    source, target = models
    theirs = {name + end: value for name, value in _to_tensorflow(source).items()}
    report = load_official_state_dict(target, theirs)
    assert set(theirs) < set(report.loaded)
    assert not report.unexpected
    assert _same(target.state_dict(), source.state_dict())


KERNEL = "transformer_class_head/_conv/kernel"
WRONG = [
    ({"encoder/_surprise/kernel": torch.ones(2)}, "unknown to the model: encoder/_surprise/kernel"),
    ({KERNEL: torch.ones(1, 64, 5)}, rf"shape of {KERNEL}: \(5, 64, 1\) in the checkpoint"),
    ({KERNEL: None}, r"missing .*: transformer_decoder\.predictor\.class_embed\.weight"),
]


@pytest.mark.parametrize(("changes", "told"), WRONG)
def test_what_is_left_over_missing_or_of_another_shape_is_named(tiny_model, changes, told):
    source, target = tiny_model(R50), tiny_model(R50)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    theirs = {**_to_tensorflow(source), **changes}
    with pytest.raises(CheckpointMismatchError, match=told):
        load_official_state_dict(target, {k: v for k, v in theirs.items() if v is not None})
    assert _same(target.state_dict(), before)


@pytest.mark.parametrize(("changes", "told"), [*WRONG, ({"top": torch.ones(2)}, "model: top")])
def test_the_checkpointer_is_as_strict(tiny_model, write_tensorflow, tmp_path, changes, told):
    source, target = tiny_model(R50), tiny_model(R50)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    theirs = {**_to_tensorflow(source), **changes}
    theirs = {k: np.asarray(v) for k, v in theirs.items() if v is not None}
    write_tensorflow(tmp_path / "ckpt-9", theirs)
    with pytest.raises(ValueError, match=rf"(?s)ckpt-9\.index cannot be loaded: .*{told}"):
        MaskTransformerCheckpointer(target).load(str(tmp_path / "ckpt-9.index"))
    assert _same(target.state_dict(), before)


def test_a_training_with_other_classes_starts_from_a_converted_file(
    tiny_model, write_tensorflow, tmp_path
):
    source = tiny_model(R50)
    own = {"MODEL.MASK_TRANSFORMER.NUM_CLASSES": 3, "DATASETS.TRAIN": (), "DATASETS.TEST": ()}
    target = tiny_model(R50, own)
    write_tensorflow(tmp_path / "ckpt-9", _to_tensorflow(source))
    with pytest.raises(ValueError, match=rf"(?s)shape of {KERNEL}: .*convert it first"):
        MaskTransformerCheckpointer(target).load(str(tmp_path / "ckpt-9.index"))
    torch.save({"model": source.state_dict()}, tmp_path / "converted.pth")
    MaskTransformerCheckpointer(target).load(str(tmp_path / "converted.pth"))
    assert torch.equal(target.transformer_decoder.centers.weight,
                       source.transformer_decoder.centers.weight)  # fmt: skip


def test_two_names_of_one_tensor_are_refused():
    names = ["pixel_decoder/_stage1/_block1/_conv3_bn/_batch_norm/beta",
             "encoder/_pixel_decoder/_stages/0/_blocks/0/_conv3_bn/_batch_norm/beta"]  # fmt: skip
    with pytest.raises(ValueError, match=r"holds pixel_decoder\.stages\.0\.0\.conv3\.norm\.bias"):
        to_native_names(SYSTEM, {name: torch.zeros(3) for name in names})


def test_a_value_that_is_no_tensor_is_named():
    with pytest.raises(ValueError, match="encoder/_stem/_conv/kernel is no tensor"):
        to_native_names(SYSTEM, {"encoder/_stem/_conv/kernel": "text"})


OTHER_FORMS = {
    "encoder/_stem/_conv/kernel": "backbone.stem.conv1.weight",
    "pixel_encoder/stage5/block3/conv3_bn/batch_norm/beta": "backbone.res5.2.conv3.norm.bias",
    "pixel_decoder/_stage2/_block5/_shortcut/_conv/kernel": (
        "pixel_decoder.stages.1.4.shortcut.conv.weight"
    ),
    "encoder/_pixel_decoder/_in_norm4/gamma": "pixel_decoder.in_norms.3.weight",
    "encoder/_pixel_decoder/_resized_fuse1/_conv_bn_high/_conv/kernel": (
        "pixel_decoder.fuses.0.high.conv.weight"
    ),
    "transformer_decoder/_kmax_transformer_layer6/_memory_ffn_conv2_bn/_conv/kernel": (
        "transformer_decoder.layers.5.ffn_out.conv.weight"
    ),
    "transformer_decoder/_kmax_transformer_layers/5/_predcitor/_pixel_space_mask_batch_norm/beta": (
        "transformer_decoder.layers.5.predictor.mask_norm.bias"
    ),
    "encoder/_pixel_encoder/_stages/2/_blocks/8/_depthwise_conv/depthwise_kernel": (
        "backbone.stages.2.8.conv_dw.weight"
    ),
    "encoder/_pixel_encoder/_stages/2/8/_layer_scale": "backbone.stages.2.8.gamma",
}


def test_other_forms_of_names():
    assert {name: native_name(SYSTEM, name + END) for name in OTHER_FORMS} == OTHER_FORMS


@pytest.mark.parametrize("system", [SYSTEM, "Mask2Former"])
@pytest.mark.parametrize("name", ["encoder/_pixel_decoder/kernel", "a/b", "encoder/_stem/_conv"])
def test_unknown_names_stay(system, name):
    assert native_name(system, name) == name
    assert list(to_native_names(system, {name: torch.ones(1)})) == [name]


@pytest.mark.parametrize("suffix", ["", ".index"])
def test_the_whole_way_through_files(tiny_model, write_tensorflow, tmp_path, suffix):
    source, path = tiny_model(R50), f"{tmp_path / 'ckpt-60000'}{suffix}"
    theirs = {name + END: value for name, value in _to_tensorflow(source).items()}
    write_tensorflow(tmp_path / "ckpt-60000", theirs)
    read, checkpointed = tiny_model(R50), tiny_model(R50)
    load_official_state_dict(read, read_state_dict(path))
    MaskTransformerCheckpointer(checkpointed).load(path)
    assert _same(read.state_dict(), source.state_dict())
    assert _same(checkpointed.state_dict(), source.state_dict())


def test_prediction_reads_them(tiny_model, tiny_config, write_tensorflow, tmp_path):
    source, path = tiny_model(R50), str(tmp_path / "ckpt-9.index")
    write_tensorflow(tmp_path / "ckpt-9", _to_tensorflow(source))
    predictor = build_predictor(tiny_config(R50, {"MODEL.WEIGHTS": path}))
    assert _same(predictor.model.state_dict(), source.state_dict())
    assert not predictor.model.training
    assert path == predictor.cfg.MODEL.WEIGHTS


# What the published checkpoints of MaX-DeepLab have in the same form: their place → one of ours.
MAX_PLACES = {
    r"encoder/_stage[23]/": "encoder/_pixel_encoder/_stage2/",
    r"encoder/_(?:decoder_)?stage\d(?:_extra)?/_block\d/_attention/": (
        "encoder/_pixel_decoder/_stages/0/_block1/_attention/"
    ),
    r"encoder/_(?:decoder_)?stage\d(?:_extra)?/_block\d/(?=_conv\d_bn_act|_conv3_bn|_shortcut)": (
        "encoder/_pixel_decoder/_stages/0/_block1/"
    ),
    r"encoder/_(?:decoder_)?stage\d(?:_extra)?/_block\d_transformer/(?=_memory)": _QUERY
    + "_kmax_transformer_layers/0/",
    r"encoder/_decoder_stage\d(?:_extra)?_resized_fuse/(?=_resized)": (
        "encoder/_pixel_decoder/_resized_fuses/0/"
    ),
    r"(?=semantic|transformer|pixel)": "",
}


@pytest.mark.parametrize("size", ["S", "L"])
def test_parts_of_max_deeplab_have_these_names(shared, size):
    lines = (shared / f"parity/manifests/max_deeplab_{size}_coco_panoptic.tsv").read_text()
    for name in (line.split("\t")[3] for line in lines.splitlines()):
        for place, ours in MAX_PLACES.items():
            if re.match(place, name):
                there = re.sub(place, ours, name, count=1)
                assert native_name(SYSTEM, there) != there
                break


def test_the_heads_of_max_deeplab_fit_those_of_kmax(shared):
    lines = (shared / "parity/manifests/max_deeplab_S_coco_panoptic.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    shapes = {row[3]: [int(side) for side in row[1].split(",")] for row in rows}
    heads = {k: torch.empty(v) for k, v in shapes.items() if not k.startswith("encoder")}
    native = {k: tuple(v.shape) for k, v in to_native_names(SYSTEM, heads).items()}
    cfg = without_initial_weights(model_zoo.get_config(R50))
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    places = ("semantic_head.", "transformer_decoder.predictor.")
    wanted = {k: tuple(v.shape) for k, v in model.state_dict().items() if k.startswith(places)}
    assert native == wanted
