"""Names of the official kMaX-DeepLab release in PyTorch.

``_predcitor`` is how it is spelt there. Norms keep all their tensors, ``num_batches_tracked`` too.
"""

Rule = tuple[str, str | None]

_PIXEL = r"sem_seg_head\.(?:pixel_decoder\.)?"  # without it as in older files of MaskFormer
_QUERY = r"sem_seg_head\.predictor\."
_BLOCK = _PIXEL + r"_stages\.(\d+)\._blocks\.(\d+)\."
_LAYER = _QUERY + r"_kmax_transformer_layers\.(\d+)\."
_SEMANTIC = _QUERY + r"_auxiliary_semantic_predictor\."


def _below(place: str, ours: str, names: dict[str, str]) -> list[Rule]:
    """Rules for parts of ``place``: official name → our name below ``ours``."""
    return [(place + part.replace(".", r"\."), ours + name) for part, name in names.items()]


_BACKBONE = {"dwconv.": "conv_dw.", "pwconv1.": "mlp.fc1.", "pwconv2.": "mlp.fc2."}
_BLOCKS = {
    "_conv1_bn_act.": "conv1.",
    "_conv2_bn_act.": "conv2.",
    "_conv3_bn.": "conv3.",
    "_shortcut.": "shortcut.",
}
_AXIS = {
    "qkv_transform.conv.": "qkv.",
    "_batch_norm_qkv.": "qkv_norm.",
    "_batch_norm_similarity.": "similarity_norm.",
    "_batch_norm_retrieved_output.": "output_norm.",
    "_query_rpe._embeddings.": "query_position.",
    "_key_rpe._embeddings.": "key_position.",
    "_value_rpe._embeddings.": "value_position.",
}
_PREDICTOR = {
    "_pixel_space_head_conv0bnact.": "depthwise.",
    "_pixel_space_head_conv1bnact.": "pointwise.",
    "_pixel_space_head_last_convbn.": "pixel_out.",
    "_transformer_mask_head.": "mask_embed.",
    "_transformer_class_head.conv.": "class_embed.",
    "_pixel_space_mask_batch_norm.": "mask_norm.",
}
_LAYERS = {
    "_query_conv1_bn_act.": "query_in.",
    "_pixel_conv1_bn_act.": "pixel_in.",
    "_query_qkv_conv_bn.": "query_qkv.",
    "_pixel_v_conv_bn.": "pixel_value.",
    "_query_self_attention._batch_norm_similarity.": "self_attention.similarity_norm.",
    "_query_self_attention._batch_norm_retrieved_value.": "self_attention.output_norm.",
    "_query_conv3_bn.": "query_out.",
    "_query_ffn_conv1_bn_act.": "ffn_in.",
    "_query_ffn_conv2_bn.": "ffn_out.",
    "_kmeans_query_batch_norm_retrieved_value.": "kmeans_norm.",
    "_kmeans_query_conv3_bn.": "kmeans_out.",
}
_DECODER = {
    "_cluster_centers.": "centers.",
    "_class_embedding_projection.": "class_projection.",
    "_mask_embedding_projection.": "mask_projection.",
}
_SEMANTIC_PARTS = {
    "_aspp._aspp_conv0.": "aspp.point.",
    **{f"_aspp._aspp_conv{i + 1}.": f"aspp.dilated.{i}." for i in range(3)},
    "_aspp._aspp_pool.": "aspp.pool.",
    "_aspp._proj_conv_bn_act.": "aspp.out.",
    **{f"_low_level_projection_os{stride}.": f"fuse{stride}.project." for stride in (8, 4)},
    **{f"_low_level_fusion_os{s}_conv0_bn_act.": f"fuse{s}.depthwise." for s in (8, 4)},
    **{f"_low_level_fusion_os{s}_conv1_bn_act.": f"fuse{s}.pointwise." for s in (8, 4)},
    "conv_block_0.": "depthwise.",
    "conv_block_1.": "pointwise.",
    "final_conv.conv.": "classes.",
}

RULES: list[Rule] = [
    (r"criterion\.empty_weight$", None),
    *_below(r"backbone\.stages\.(\d+)\.(\d+)\.", r"backbone.stages.\1.\2.", _BACKBONE),
    *_below(_BLOCK, r"pixel_decoder.stages.\1.\2.", _BLOCKS),
    *_below(
        _BLOCK + r"_attention\._(height|width)_axis\.",
        r"pixel_decoder.stages.\1.\2.attention.\3.",
        _AXIS,
    ),
    (_PIXEL + r"_in_norms\.", "pixel_decoder.in_norms."),
    (_PIXEL + r"_resized_fuses\.(\d+)\._conv_bn_(low|high)\.", r"pixel_decoder.fuses.\1.\2."),
    *_below(_LAYER + r"_predcitor\.", r"transformer_decoder.layers.\1.predictor.", _PREDICTOR),
    *_below(_LAYER, r"transformer_decoder.layers.\1.", _LAYERS),
    *_below(_QUERY + r"_predcitor\.", "transformer_decoder.predictor.", _PREDICTOR),
    *_below(_SEMANTIC, "semantic_head.", _SEMANTIC_PARTS),
    *_below(_QUERY, "transformer_decoder.", _DECODER),
]
