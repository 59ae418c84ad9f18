"""Names of the official Mask2Former release, in its present and its older form.

The older form has no ``pixel_decoder.`` in the names of the pixel decoder, and ``static_query``
for ``query_feat``.
"""

from . import swin

_PIXEL = r"sem_seg_head\.(?:pixel_decoder\.)?"
_QUERY = r"sem_seg_head\.predictor\."
_LAYER = r"transformer_decoder.layers.\1."

RULES: list[tuple[str, str | None]] = [
    (r"criterion\.empty_weight$", None),
    *swin.RULES,
    (
        _QUERY + r"transformer_cross_attention_layers\.(\d+)\.multihead_attn\.",
        _LAYER + "cross_attn.",
    ),
    (_QUERY + r"transformer_cross_attention_layers\.(\d+)\.norm\.", _LAYER + "cross_norm."),
    (_QUERY + r"transformer_self_attention_layers\.(\d+)\.self_attn\.", _LAYER + "self_attn."),
    (_QUERY + r"transformer_self_attention_layers\.(\d+)\.norm\.", _LAYER + "self_norm."),
    (_QUERY + r"transformer_ffn_layers\.(\d+)\.norm\.", _LAYER + "ffn_norm."),
    (_QUERY + r"transformer_ffn_layers\.(\d+)\.", _LAYER),
    (_QUERY + r"static_query\.", "transformer_decoder.query_feat."),
    (_QUERY, "transformer_decoder."),
    (_PIXEL + r"transformer\.encoder\.layers\.", "pixel_decoder.layers."),
    (_PIXEL + r"transformer\.", "pixel_decoder."),
    (_PIXEL + r"adapter_1\.", "pixel_decoder.lateral."),
    (_PIXEL + r"layer_1\.", "pixel_decoder.output."),
    (_PIXEL, "pixel_decoder."),
]
