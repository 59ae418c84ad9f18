"""Names of the published TensorFlow checkpoints of MaX-DeepLab, in DeepLab2's form.

Decoders are numbered through there: the first four steps of L belong to the backbone, and what
comes before the other steps is called after the stage that it follows, ``_stage5_extra`` in S and
``_decoder_stage4_extra`` in L.
"""

from .deeplab2_parts import AXIS, BLOCKS, HEADS, SEMANTIC, Rule, below, normed

_LAYERS = {
    **normed(
        {
            "memory_conv1_bn_act": "memory_in",
            "pixel_conv1_bn_act": "pixel_in",
            "memory_qkv_conv_bn": "memory_qkv",
            "pixel_qkv_conv_bn": "pixel_qkv",
            "memory_conv3_bn": "memory_out",
            "pixel_conv3_bn": "pixel_out",
            "memory_ffn_conv1_bn_act": "ffn_in",
            "memory_ffn_conv2_bn": "ffn_out",
        }
    ),
    **{
        f"{who}_attention/batch_norm_{theirs}": f"{who}_attention.{ours}"
        for who in ("memory", "pixel")
        for theirs, ours in (
            ("similarity", "similarity_norm"),
            ("retrieved_value", "output_norm"),
        )
    },
}
# Their stage → ours: stages of the backbone, its decoder, and the decoder after it.
_STAGES = {
    **{f"stage{i}": f"backbone.stages.res{i}." for i in range(1, 6)},
    **{f"decoder_stage{i}": f"backbone.steps.{i - 1}.stage." for i in range(1, 5)},
    "(?:stage5|decoder_stage4)_extra": "decoder.first.",
    **{f"decoder_stage{i}_extra": f"decoder.steps.{i - 1}.stage." for i in (1, 2)},  # S
    **{f"decoder_stage{i}_extra": f"decoder.steps.{i - 5}.stage." for i in range(5, 11)},  # L
}


def _stage(theirs: str, ours: str) -> list[Rule]:
    """Rules for one stage, and for what comes before it in a decoder."""
    block = rf"encoder/{theirs}/blocks/(\d+)"
    fuse = f"encoder/{theirs}_resized_fuse/(?:resized|strided)_conv_bn1/"
    return [
        *below(block + "/", ours + r"blocks.\1.", BLOCKS),
        *below(block + "/attention/(height|width)_axis", ours + r"blocks.\1.attention.\2.", AXIS),
        *below(block + "_transformer/", ours + r"transformers.\1.", _LAYERS),
        (fuse + "conv", ours.replace("stage.", "fuse.project.conv")),
        (fuse + "batch_norm", ours.replace("stage.", "fuse.project.norm")),
    ]


# (Pattern of a whole name without its last part, our name of that).
RULES: list[Rule] = [
    ("encoder/stem/conv", "backbone.stem.0.conv"),  # L
    ("encoder/stem/batch_norm", "backbone.stem.0.norm"),
    *below(
        "encoder/stem/",
        "backbone.stem.",
        normed({"conv1_bn_act": "0", "conv2_bn_act": "1", "conv3_bn": "2"}),
    ),
    *(rule for theirs, ours in _STAGES.items() for rule in _stage(theirs, ours)),
    *below(
        "encoder/",
        "",
        normed(
            {"class_feature_extra": "class_projection", "mask_feature_extra": "mask_projection"}
        ),
    ),
    *below("", "predictor.", HEADS),
    *below("", "semantic_head.", SEMANTIC),
]
# The same for variables that are attributes themselves.
VARIABLES: list[Rule] = [("encoder/memory_feature", "memory.weight")]
