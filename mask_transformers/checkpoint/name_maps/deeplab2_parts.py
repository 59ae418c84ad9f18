"""Parts that DeepLab2's MaX-DeepLab and kMaX-DeepLab share: their names → ours."""

Rule = tuple[str, str]


def below(place: str, ours: str, parts: dict[str, str]) -> list[Rule]:
    """Rules for parts of ``place``: their name → our name below ``ours``."""
    return [(place + part, ours + name) for part, name in parts.items()]


def normed(parts: dict[str, str], conv: str = "conv") -> dict[str, str]:
    """Each of ``parts`` as a convolution, which is called ``conv``, and its norm."""
    convs = {f"{part}/{conv}": f"{name}.conv" for part, name in parts.items()}
    return convs | {f"{part}/batch_norm": f"{name}.norm" for part, name in parts.items()}


def separable(part: str, ours: str = "") -> dict[str, str]:
    """A depthwise and a pointwise convolution with their norms."""
    depthwise = normed({f"{part}/conv1_bn_act/depthwise": f"{ours}depthwise"}, "depthwise_conv")
    return depthwise | normed({f"{part}/conv1_bn_act/pointwise": f"{ours}pointwise"})


BLOCKS = normed(
    {
        "conv1_bn_act": "conv1",
        "conv2_bn(?:_act)?": "conv2",  # without in basic blocks, where it comes last
        "conv3_bn": "conv3",
        "shortcut": "shortcut",
    }
)
AXIS = {
    "": "qkv",  # its kernel is a variable of the axis
    "/batch_norm_qkv": "qkv_norm",
    "/batch_norm_similarity": "similarity_norm",
    "/batch_norm_retrieved_output": "output_norm",
    "/query_rpe": "query_position",
    "/key_rpe": "key_position",
    "/value_rpe": "value_position",
}
HEADS = {
    **separable("pixel_space_head/conv_block"),
    "pixel_space_head/final_conv": "pixel_out.conv",
    "pixel_space_feature_batch_norm": "pixel_out.norm",
    **normed({"transformer_mask_head": "mask_embed"}),
    "transformer_class_head/conv": "class_embed",
    "pixel_space_mask_batch_norm": "mask_norm",
}
SEMANTIC = {
    **normed(
        {
            "semantic_decoder/aspp/conv_bn_act": "aspp.point",
            **{
                f"semantic_decoder/aspp/aspp_conv{i + 1}/conv_bn_act": f"aspp.dilated.{i}"
                for i in range(3)
            },
            "semantic_decoder/aspp/aspp_pool/conv_bn_act": "aspp.pool",
            "semantic_decoder/aspp/proj_conv_bn_act": "aspp.out",
            "semantic_decoder/low_level_conv1": "fuse8.project",
            "semantic_decoder/low_level_conv2": "fuse4.project",
        }
    ),
    **separable("semantic_decoder/fusion_conv1", "fuse8."),
    **separable("semantic_decoder/fusion_conv2", "fuse4."),
    **separable("semantic_head_without_last_layer"),
    "semantic_last_layer": "classes",
}
