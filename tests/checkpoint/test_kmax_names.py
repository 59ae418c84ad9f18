"""Names of the official kMaX-DeepLab release; whole lists of them are in test_manifests.py."""

import pytest

from mask_transformers.checkpoint.name_maps import native_name, to_native_names

_PIXEL, _QUERY = "sem_seg_head.pixel_decoder.", "sem_seg_head.predictor."
_AXIS = _PIXEL + "_stages.1._blocks.4._attention._height_axis."
_LAYER = _QUERY + "_kmax_transformer_layers.5."
_SEMANTIC = _QUERY + "_auxiliary_semantic_predictor."
_OURS = "pixel_decoder.stages.1.4.attention.height."
FACTS = {
    "backbone.stem.conv1.norm.num_batches_tracked": "backbone.stem.conv1.norm.num_batches_tracked",
    "backbone.res5.2.conv3.norm.running_var": "backbone.res5.2.conv3.norm.running_var",
    "backbone.downsample_layers.0.1.bias": "backbone.downsample_layers.0.1.bias",
    "backbone.stages.2.26.gamma": "backbone.stages.2.26.gamma",
    "backbone.stages.2.26.norm.weight": "backbone.stages.2.26.norm.weight",
    "backbone.stages.2.26.dwconv.weight": "backbone.stages.2.26.conv_dw.weight",
    "backbone.stages.0.0.pwconv1.bias": "backbone.stages.0.0.mlp.fc1.bias",
    "backbone.stages.0.0.pwconv2.bias": "backbone.stages.0.0.mlp.fc2.bias",
    _PIXEL + "_in_norms.3.bias": "pixel_decoder.in_norms.3.bias",
    _PIXEL + "_stages.2._blocks.0._conv2_bn_act.norm.bias": (
        "pixel_decoder.stages.2.0.conv2.norm.bias"
    ),
    _PIXEL + "_stages.0._blocks.0._conv3_bn.conv.weight": (
        "pixel_decoder.stages.0.0.conv3.conv.weight"
    ),
    _PIXEL + "_stages.3._blocks.0._shortcut.norm.running_mean": (
        "pixel_decoder.stages.3.0.shortcut.norm.running_mean"
    ),
    _AXIS + "qkv_transform.conv.weight": _OURS + "qkv.weight",
    _AXIS + "_batch_norm_qkv.weight": _OURS + "qkv_norm.weight",
    _AXIS + "_batch_norm_similarity.bias": _OURS + "similarity_norm.bias",
    _AXIS + "_batch_norm_retrieved_output.running_var": _OURS + "output_norm.running_var",
    _AXIS + "_query_rpe._embeddings.weight": _OURS + "query_position.weight",
    _AXIS + "_key_rpe._embeddings.weight": _OURS + "key_position.weight",
    _AXIS + "_value_rpe._embeddings.weight": _OURS + "value_position.weight",
    _PIXEL + "_resized_fuses.0._conv_bn_low.conv.weight": "pixel_decoder.fuses.0.low.conv.weight",
    _PIXEL + "_resized_fuses.2._conv_bn_high.norm.bias": "pixel_decoder.fuses.2.high.norm.bias",
    _LAYER + "_query_conv1_bn_act.conv.weight": "transformer_decoder.layers.5.query_in.conv.weight",
    _LAYER + "_query_conv3_bn.norm.bias": "transformer_decoder.layers.5.query_out.norm.bias",
    _LAYER + "_pixel_v_conv_bn.norm.bias": "transformer_decoder.layers.5.pixel_value.norm.bias",
    _LAYER + "_query_ffn_conv2_bn.norm.bias": "transformer_decoder.layers.5.ffn_out.norm.bias",
    _LAYER
    + "_kmeans_query_conv3_bn.norm.bias": "transformer_decoder.layers.5.kmeans_out.norm.bias",
    _LAYER + "_kmeans_query_batch_norm_retrieved_value.bias": (
        "transformer_decoder.layers.5.kmeans_norm.bias"
    ),
    _LAYER + "_query_self_attention._batch_norm_retrieved_value.bias": (
        "transformer_decoder.layers.5.self_attention.output_norm.bias"
    ),
    _LAYER + "_predcitor._transformer_class_head.conv.bias": (
        "transformer_decoder.layers.5.predictor.class_embed.bias"
    ),
    _LAYER + "_predcitor._pixel_space_head_conv0bnact.conv.weight": (
        "transformer_decoder.layers.5.predictor.depthwise.conv.weight"
    ),
    _QUERY + "_predcitor._pixel_space_mask_batch_norm.weight": (
        "transformer_decoder.predictor.mask_norm.weight"
    ),
    _QUERY + "_predcitor._transformer_mask_head.norm.bias": (
        "transformer_decoder.predictor.mask_embed.norm.bias"
    ),
    _QUERY + "_cluster_centers.weight": "transformer_decoder.centers.weight",
    _QUERY + "_class_embedding_projection.norm.bias": (
        "transformer_decoder.class_projection.norm.bias"
    ),
    _SEMANTIC + "_aspp._aspp_conv0.conv.weight": "semantic_head.aspp.point.conv.weight",
    _SEMANTIC + "_aspp._aspp_conv3.conv.weight": "semantic_head.aspp.dilated.2.conv.weight",
    _SEMANTIC + "_aspp._aspp_pool.norm.bias": "semantic_head.aspp.pool.norm.bias",
    _SEMANTIC + "_low_level_projection_os4.norm.bias": "semantic_head.fuse4.project.norm.bias",
    _SEMANTIC + "_low_level_fusion_os8_conv0_bn_act.norm.bias": (
        "semantic_head.fuse8.depthwise.norm.bias"
    ),
    _SEMANTIC + "conv_block_1.conv.weight": "semantic_head.pointwise.conv.weight",
    _SEMANTIC + "final_conv.conv.bias": "semantic_head.classes.bias",
}


def test_names():
    assert {name: native_name("KMaXDeepLab", name) for name in FACTS} == FACTS


@pytest.mark.parametrize("ours", FACTS.values())
def test_our_names_stay(ours):
    assert native_name("KMaXDeepLab", ours) == ours


def test_what_no_model_needs_is_left_out():
    assert to_native_names("KMaXDeepLab", {"criterion.empty_weight": None}) == {}
