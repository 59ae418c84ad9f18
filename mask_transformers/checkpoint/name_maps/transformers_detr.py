"""DETR's names in the library `transformers`; see transformers_parts for the tables.

``DetrForSegmentation`` has ``DetrForObjectDetection`` inside, under ``detr.``.
"""

from .transformers_parts import TAKEN_APART, Rule, below, resnet, timm_resnet

_BACKBONE = "model.backbone.conv_encoder.model."
_ENCODER = "model.encoder.layers.{i}."
_DECODER = "model.decoder.layers.{i}."

_TRANSFORMER: list[Rule] = [
    *below("encoder.{i}.self_attn.", _ENCODER + "self_attn.", TAKEN_APART),
    *below(
        "encoder.{i}.",
        _ENCODER,
        {
            "norm1.": "self_attn_layer_norm.",
            "linear1.": "fc1.",
            "linear2.": "fc2.",
            "norm2.": "final_layer_norm.",
        },
    ),
    *below("decoder.layers.{i}.self_attn.", _DECODER + "self_attn.", TAKEN_APART),
    *below("decoder.layers.{i}.cross_attn.", _DECODER + "encoder_attn.", TAKEN_APART),
    *below(
        "decoder.layers.{i}.",
        _DECODER,
        {
            "norm1.": "self_attn_layer_norm.",
            "norm2.": "encoder_attn_layer_norm.",
            "linear1.": "fc1.",
            "linear2.": "fc2.",
            "norm3.": "final_layer_norm.",
        },
    ),
    ("decoder.query_embed.", "model.query_position_embeddings."),
    ("decoder.norm.", "model.decoder.layernorm."),
    ("input_proj.", "model.input_projection."),
    ("class_embed.", "class_labels_classifier."),
    ("box_embed.", "bbox_predictor."),
]
_MASK_HEAD: list[Rule] = [
    ("mask_head.attention.", "bbox_attention."),
    *((f"mask_head.convs.{i}.", f"mask_head.lay{i + 1}.") for i in range(5)),
    *((f"mask_head.norms.{i}.", f"mask_head.gn{i + 1}.") for i in range(5)),
    *((f"mask_head.adapters.{i}.", f"mask_head.adapter{i + 1}.") for i in range(3)),
    ("mask_head.out.", "mask_head.out_lay."),
]

_PRESENT_LAYER = {
    "self_attn.out_proj.": "self_attn.o_proj.",
    "encoder_attn.out_proj.": "encoder_attn.o_proj.",
    "fc1.": "mlp.fc1.",
    "fc2.": "mlp.fc2.",
}
_PRESENT: list[Rule] = [
    (_BACKBONE, "model.backbone.model."),
    *below(_ENCODER, _ENCODER, _PRESENT_LAYER),
    *below(_DECODER, _DECODER, _PRESENT_LAYER),
]
_PRESENT_MASK_HEAD: list[Rule] = [
    ("bbox_attention.q_linear.", "bbox_attention.q_proj."),
    ("bbox_attention.k_linear.", "bbox_attention.k_proj."),
    *below(
        "mask_head.",
        "mask_head.",
        {
            "lay1.": "conv1.conv.",
            "gn1.": "conv1.norm.",
            "lay2.": "conv2.conv.",
            "gn2.": "conv2.norm.",
            "adapter1.": "fpn_stages.0.fpn_adapter.",
            "lay3.": "fpn_stages.0.refine.conv.",
            "gn3.": "fpn_stages.0.refine.norm.",
            "adapter2.": "fpn_stages.1.fpn_adapter.",
            "lay4.": "fpn_stages.1.refine.conv.",
            "gn4.": "fpn_stages.1.refine.norm.",
            "adapter3.": "fpn_stages.2.fpn_adapter.",
            "lay5.": "fpn_stages.2.refine.conv.",
            "gn5.": "fpn_stages.2.refine.norm.",
            "out_lay.": "output_conv.",
        },
    ),
]


def detr_rules(with_masks: bool, timm_backbone: bool) -> list[Rule]:
    """Rules (our name, name in published files); both kinds of ResNet are read, one is written."""
    kinds = [resnet(_BACKBONE), timm_resnet(_BACKBONE)]
    first, second = reversed(kinds) if timm_backbone else kinds
    rules = [*first, *second, *_TRANSFORMER]
    if not with_masks:
        return rules
    return [*_MASK_HEAD, *((ours, "detr." + theirs) for ours, theirs in rules)]


def detr_present_names(with_masks: bool) -> list[Rule]:
    """Rules (name in published files, name in the modules of transformers 5)."""
    if not with_masks:
        return _PRESENT
    return [*_PRESENT_MASK_HEAD, *(("detr." + old, "detr." + new) for old, new in _PRESENT)]
