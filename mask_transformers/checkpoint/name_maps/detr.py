"""Names of the official DETR release: torchvision's in the ResNet, PyTorch's in the transformer.

Models with a mask head have the detector inside, under ``detr.``.
"""

_DETR = r"(?:detr\.)?"
_BODY = _DETR + r"backbone\.0\.body\."
_STAGES = range(1, 5)  # torchvision's layer1 is res2
_CONVOLUTIONS = range(1, 6)  # official layers of the mask head count from 1
_ADAPTERS = range(1, 4)


def _resnet_rules() -> list[tuple[str, str | None]]:
    rules: list[tuple[str, str | None]] = [
        (_BODY + r".*\.num_batches_tracked$", None),
        (_BODY + r"conv1\.", "backbone.stem.conv1."),
        (_BODY + r"bn1\.", "backbone.stem.conv1.norm."),
    ]
    for stage in _STAGES:
        block, ours = _BODY + rf"layer{stage}\.(\d+)\.", rf"backbone.res{stage + 1}.\1."
        rules += [
            (block + r"conv(\d)\.", ours + r"conv\2."),
            (block + r"bn(\d)\.", ours + r"conv\2.norm."),
            (block + r"downsample\.0\.", ours + "shortcut."),
            (block + r"downsample\.1\.", ours + "shortcut.norm."),
        ]
    return rules


RULES: list[tuple[str, str | None]] = [
    (r"criterion\.empty_weight$", None),
    *_resnet_rules(),
    (_DETR + r"transformer\.encoder\.layers\.", "encoder."),
    (
        _DETR + r"transformer\.decoder\.layers\.(\d+)\.multihead_attn\.",
        r"decoder.layers.\1.cross_attn.",
    ),
    (_DETR + r"transformer\.decoder\.", "decoder."),
    (_DETR + r"query_embed\.", "decoder.query_embed."),
    (_DETR + r"bbox_embed\.", "box_embed."),
    (_DETR + r"(input_proj|class_embed)\.", r"\1."),
    (r"bbox_attention\.", "mask_head.attention."),
    *((rf"mask_head\.lay{i}\.", f"mask_head.convs.{i - 1}.") for i in _CONVOLUTIONS),
    *((rf"mask_head\.gn{i}\.", f"mask_head.norms.{i - 1}.") for i in _CONVOLUTIONS),
    *((rf"mask_head\.adapter{i}\.", f"mask_head.adapters.{i - 1}.") for i in _ADAPTERS),
    (r"mask_head\.out_lay\.", "mask_head.out."),
]
