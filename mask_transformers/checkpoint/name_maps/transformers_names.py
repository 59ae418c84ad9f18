"""Names of the library `transformers` for our tensors, in tables that are read both ways."""

from .transformers_parts import TAKEN_APART, Rule, below, resnet

ENCODER = "model.pixel_level_module.encoder."
_PIXEL = "model.pixel_level_module.decoder."
_QUERY = "model.transformer_module."

_SWIN = {
    "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
    "patch_embed.norm.": "embeddings.norm.",
    "layers.{i}.downsample.": "encoder.layers.{i}.downsample.",
}
_SWIN_BLOCK = {
    "norm1.": "layernorm_before.",
    "attn.qkv.": "attention.self.{query|key|value}.",
    "attn.relative_position_": "attention.self.relative_position_",
    "attn.proj.": "attention.output.dense.",
    "norm2.": "layernorm_after.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}


def _swin(place: str) -> list[Rule]:
    blocks = "layers.{i}.blocks.{j}."
    return [
        *below("backbone.", place, _SWIN),
        *below("backbone." + blocks, place + "encoder." + blocks, _SWIN_BLOCK),
    ]


_CRITERION: Rule = ("criterion.class_balance", "criterion.empty_weight")

_MASK2FORMER: list[Rule] = [
    *resnet(ENCODER),
    *_swin(ENCODER),
    *((f"backbone.norm{i}.", f"{ENCODER}hidden_states_norms.stage{i + 1}.") for i in range(4)),
    *below(
        "pixel_decoder.layers.{i}.",
        _PIXEL + "encoder.layers.{i}.",
        {
            "self_attn.": "self_attn.",
            "norm1.": "self_attn_layer_norm.",
            "linear1.": "fc1.",
            "linear2.": "fc2.",
            "norm2.": "final_layer_norm.",
        },
    ),
    *below(
        "pixel_decoder.",
        _PIXEL,
        {
            "input_proj.": "input_projections.",
            "level_embed": "level_embed",
            "lateral.norm.": "adapter_1.1.",
            "lateral.": "adapter_1.0.",
            "output.norm.": "layer_1.1.",
            "output.": "layer_1.0.",
            "mask_features.": "mask_projection.",
        },
    ),
    *below(
        "transformer_decoder.layers.{i}.",
        _QUERY + "decoder.layers.{i}.",
        {
            "cross_attn.": "cross_attn.",  # the one packed attention there
            "cross_norm.": "cross_attn_layer_norm.",
            "self_norm.": "self_attn_layer_norm.",
            "linear1.": "fc1.",
            "linear2.": "fc2.",
            "ffn_norm.": "final_layer_norm.",
        },
    ),
    *below(
        "transformer_decoder.layers.{i}.self_attn.",
        _QUERY + "decoder.layers.{i}.self_attn.",
        TAKEN_APART,
    ),
    *below(
        "transformer_decoder.",
        _QUERY,
        {
            "query_feat.": "queries_features.",
            "query_embed.": "queries_embedder.",
            "level_embed.": "level_embed.",
            "decoder_norm.": "decoder.layernorm.",
            "mask_embed.layers.{i}.": "decoder.mask_predictor.mask_embedder.{i}.0.",
        },
    ),
    ("transformer_decoder.class_embed.", "class_predictor."),
    _CRITERION,
]

_DETR = "transformer_decoder.decoder."
_DETR_LAYER = _QUERY + "decoder.layers.{i}."

_MASKFORMER: list[Rule] = [
    *resnet(ENCODER),
    *_swin(ENCODER + "model."),
    *((f"backbone.norm{i}.", f"{ENCODER}hidden_states_norms.{i}.") for i in range(4)),
    *below(
        "pixel_decoder.pyramid.",
        _PIXEL + "fpn.",
        {  # theirs counts from coarse to fine
            "output.3.norm.": "stem.1.",
            "output.3.": "stem.0.",
            "lateral.2.norm.": "layers.0.proj.1.",
            "lateral.2.": "layers.0.proj.0.",
            "output.2.norm.": "layers.0.block.1.",
            "output.2.": "layers.0.block.0.",
            "lateral.1.norm.": "layers.1.proj.1.",
            "lateral.1.": "layers.1.proj.0.",
            "output.1.norm.": "layers.1.block.1.",
            "output.1.": "layers.1.block.0.",
            "lateral.0.norm.": "layers.2.proj.1.",
            "lateral.0.": "layers.2.proj.0.",
            "output.0.norm.": "layers.2.block.1.",
            "output.0.": "layers.2.block.0.",
        },
    ),
    ("pixel_decoder.mask_features.", _PIXEL + "mask_projection."),
    *below(
        _DETR + "layers.{i}.",
        _DETR_LAYER,
        {
            "norm1.": "self_attn_layer_norm.",
            "norm2.": "encoder_attn_layer_norm.",
            "linear1.": "fc1.",
            "linear2.": "fc2.",
            "norm3.": "final_layer_norm.",
        },
    ),
    *below(_DETR + "layers.{i}.self_attn.", _DETR_LAYER + "self_attn.", TAKEN_APART),
    *below(_DETR + "layers.{i}.cross_attn.", _DETR_LAYER + "encoder_attn.", TAKEN_APART),
    (_DETR + "query_embed.", _QUERY + "queries_embedder."),
    (_DETR + "input_proj.", _QUERY + "input_projection."),
    (_DETR + "norm.", _QUERY + "decoder.layernorm."),
    ("transformer_decoder.mask_embed.layers.{i}.", "mask_embedder.{i}.0."),
    ("transformer_decoder.class_embed.", "class_predictor."),
    _CRITERION,
]

# Meta-architecture → rules (our name, name in published files).
RULES = {"Mask2Former": _MASK2FORMER, "MaskFormer": _MASKFORMER}

_PRESENT_SWIN: list[Rule] = [
    (ENCODER + "embeddings.", ENCODER + "swin.embeddings."),
    *below(
        ENCODER + "encoder.layers.{i}.blocks.{j}.",
        ENCODER + "swin.encoder.layers.{i}.blocks.{j}.",
        {
            "attention.self.query.": "attention.q_proj.",
            "attention.self.key.": "attention.k_proj.",
            "attention.self.value.": "attention.v_proj.",
            "attention.self.relative_": "attention.relative_position_bias.relative_",
            "attention.output.dense.": "attention.o_proj.",
            "intermediate.dense.": "mlp.fc1.",
            "output.dense.": "mlp.fc2.",
        },
    ),
    (ENCODER + "encoder.layers.", ENCODER + "swin.encoder.layers."),
]
_PRESENT_DETR = below(
    _DETR_LAYER,
    _DETR_LAYER,
    {
        "self_attn.out_proj.": "self_attn.o_proj.",
        "encoder_attn.out_proj.": "encoder_attn.o_proj.",
        "fc1.": "mlp.fc1.",
        "fc2.": "mlp.fc2.",
    },
)
# Meta-architecture → rules (name in published files, name in the modules of transformers 5).
PRESENT_NAMES = {"Mask2Former": _PRESENT_SWIN, "MaskFormer": _PRESENT_DETR}
