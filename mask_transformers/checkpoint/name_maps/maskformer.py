"""Names of the official MaskFormer release and its per-pixel baselines.

The older form has no ``pixel_decoder.`` in the names of the pixel decoder.
"""

from . import swin

_PIXEL = r"sem_seg_head\.(?:pixel_decoder\.)?"
_QUERY = r"sem_seg_head\.predictor\."
_LEVELS = range(1, 5)  # official layers count from 1, fine to coarse

_DECODER = [
    (_QUERY + r"transformer\.decoder\.layers\.(\d+)\.multihead_attn\.", r"{}layers.\1.cross_attn."),
    (_QUERY + r"transformer\.decoder\.", "{}"),
    (_QUERY + r"(query_embed|input_proj)\.", r"{}\1."),
]
_PYRAMID: list[tuple[str, str | None]] = [
    *swin.RULES,
    (r"criterion\.empty_weight$", None),
    *((_PIXEL + rf"adapter_{i}\.", f"pixel_decoder.pyramid.lateral.{i - 1}.") for i in _LEVELS),
    *((_PIXEL + rf"layer_{i}\.", f"pixel_decoder.pyramid.output.{i - 1}.") for i in _LEVELS),
    (_PIXEL + r"transformer\.encoder\.layers\.", "pixel_decoder.layers."),
]


def _decoder_in(place: str) -> list[tuple[str, str | None]]:
    return [(pattern, name.format(place)) for pattern, name in _DECODER]


RULES: list[tuple[str, str | None]] = [
    *_decoder_in("transformer_decoder.decoder."),
    (_QUERY, "transformer_decoder."),
    *_PYRAMID,
    (_PIXEL, "pixel_decoder."),
]

PER_PIXEL_RULES: list[tuple[str, str | None]] = [
    *_decoder_in("classifier.decoder."),
    (_QUERY + r"mask_embed\.", "classifier.mask_embed."),
    (_QUERY, "classifier.predictor."),
    *_PYRAMID,
    (_PIXEL, "pixel_decoder."),
]
