"""Names and layouts of DeepLab2, the authors' TensorFlow code of MaX- and kMaX-DeepLab.

A variable is called after the attributes that lead to it, ``encoder/_stem/_conv/kernel``. The
underscores before attributes say nothing and are not compared. Attributes that are numbered count
from 1 (``_block1``), lists from 0 (``_blocks/0``); both are understood.

What published checkpoints of MaX-DeepLab have in the same form, and is certain: the ResNet's and
the residual blocks (``_stage2/_block1/_conv1_bn_act/_conv/kernel``), axial attention, the layers of
memory (queries, here) and their attention, all that is left and right of the transformer
(``pixel_space_head``, ``transformer_mask_head``, ``semantic_decoder``, ...), and all layouts.

Not confirmed by a file, but after the attributes of the PyTorch release, which was written after
DeepLab2: what lies above these parts (``_pixel_encoder``, ``_pixel_decoder``,
``_transformer_decoder``), ``_in_norms``, ``_resized_fuses`` and their second input, the k-means
update, the predictors within layers, the two projections, the centres, and all of ConvNeXt. Where
two forms are likely both are understood. Loading is strict: a name that is otherwise is told.
"""

import re
from functools import cache

import torch

from . import max_deeplab
from .deeplab2_parts import AXIS, BLOCKS, HEADS, SEMANTIC, Rule, below, normed

# Last part of a name → of ours.
LEAVES = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "qkv_kernel": "weight",
    "embeddings": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# Numbered attributes that our lists stand for; stages of an encoder are res2 to res5 instead.
_NUMBERED = re.compile(
    r"(block|in_norm|resized_fuse|kmax_transformer_layer|(?<=pixel_decoder/)stage)(\d+)"
    r"(?=/|_transformer/)"
)
# 1×1 convolutions of maps here, of rows of pixels there.
_OF_PIXELS = re.compile(r".*\.pixel_(?:in|qkv|value|out)\.conv\.weight$")


_PART = r"(?:encoder/)?"
_ENCODER = r"(?:encoder|(?:encoder/)?pixel_encoder)/"
_PIXEL = _PART + "pixel_decoder/"
_QUERY = _PART + "transformer_decoder/"
_STAGE = _ENCODER + r"stage(\d)/blocks/(\d+)/"
_ITEM = r"(?:layer_with_weights-)?(\d+)"  # of a list or of tf.keras.Sequential
_CONVNEXT = _ENCODER + rf"stages/(\d+)/(?:blocks/)?{_ITEM}/"
_BLOCK = _PIXEL + r"stages/(\d+)/(?:blocks/)?(\d+)/"
_FUSE = _PIXEL + r"resized_fuses/(\d+)/"
_LAYER = _QUERY + r"kmax_transformer_layers/(\d+)/"

_WHO = "(?:query|memory)"
_LAYERS = {
    **normed(
        {
            f"{_WHO}_conv1_bn_act": "query_in",
            "pixel_conv1_bn_act": "pixel_in",
            f"{_WHO}_qkv_conv_bn": "query_qkv",
            "pixel_v_conv_bn": "pixel_value",
            f"{_WHO}_conv3_bn": "query_out",
            f"{_WHO}_ffn_conv1_bn_act": "ffn_in",
            f"{_WHO}_ffn_conv2_bn": "ffn_out",
            f"kmeans_{_WHO}_conv3_bn": "kmeans_out",
        }
    ),
    f"kmeans_{_WHO}_batch_norm_retrieved_value": "kmeans_norm",
    "(?:query_self|memory)_attention/batch_norm_similarity": "self_attention.similarity_norm",
    "(?:query_self|memory)_attention/batch_norm_retrieved_value": "self_attention.output_norm",
}
_PREDICTOR = r"(?:predcitor|predictor|auxiliary_(?:clustering_)?predictor)/"

# Meta-architecture → (pattern of a whole name without its last part, our name of that).
RULES: dict[str, list[Rule]] = {
    "MaXDeepLab": max_deeplab.RULES,
    "KMaXDeepLab": [
        (_ENCODER + "stem/conv", "backbone.stem.conv1"),
        (_ENCODER + "stem/batch_norm", "backbone.stem.conv1.norm"),
        (_STAGE + r"conv(\d)_bn(?:_act)?/conv", r"backbone.res\1.\2.conv\3"),
        (_STAGE + r"conv(\d)_bn(?:_act)?/batch_norm", r"backbone.res\1.\2.conv\3.norm"),
        (_STAGE + "shortcut/conv", r"backbone.res\1.\2.shortcut"),
        (_STAGE + "shortcut/batch_norm", r"backbone.res\1.\2.shortcut.norm"),
        (_ENCODER + rf"downsample_layers/(\d+)/{_ITEM}", r"backbone.downsample_layers.\1.\2"),
        *below(
            _CONVNEXT,
            r"backbone.stages.\1.\2.",
            {
                "(?:dwconv|depthwise_conv(?:olution)?)": "conv_dw",
                "norm": "norm",
                "(?:pwconv|pointwise_conv(?:olution)?_?)1": "mlp.fc1",
                "(?:pwconv|pointwise_conv(?:olution)?_?)2": "mlp.fc2",
            },
        ),
        (_PIXEL + r"in_norms/(\d+)", r"pixel_decoder.in_norms.\1"),
        *below(_BLOCK, r"pixel_decoder.stages.\1.\2.", BLOCKS),
        *below(
            _BLOCK + "attention/(height|width)_axis",
            r"pixel_decoder.stages.\1.\2.attention.\3.",
            AXIS,
        ),
        *below(
            _FUSE,
            r"pixel_decoder.fuses.\1.",
            normed(
                {"(?:resized_conv_bn1|conv_bn_low)": "low", "(?:conv_bn2|conv_bn_high)": "high"}
            ),
        ),
        *below(_LAYER, r"transformer_decoder.layers.\1.", _LAYERS),
        *below(_LAYER + _PREDICTOR, r"transformer_decoder.layers.\1.predictor.", HEADS),
        *below(
            _QUERY,
            "transformer_decoder.",
            normed(
                {
                    "class_embedding_projection": "class_projection",
                    "mask_embedding_projection": "mask_projection",
                }
            ),
        ),
        *below("", "transformer_decoder.predictor.", HEADS),
        *below("", "semantic_head.", SEMANTIC),
    ],
}
# The same for variables that are attributes themselves.
VARIABLES: dict[str, list[Rule]] = {
    "MaXDeepLab": max_deeplab.VARIABLES,
    "KMaXDeepLab": [
        (_QUERY + "cluster_centers(?:/embeddings)?", "transformer_decoder.centers.weight"),
        (_CONVNEXT + "(?:gamma|layer_scale)", r"backbone.stages.\1.\2.gamma"),
    ],
}


def is_deeplab2(name: str) -> bool:
    """Whether ``name`` is one of TensorFlow's; PyTorch's have no slash."""
    return "/" in name


def native_name(system: str, name: str) -> str:
    """Our name of a variable; ``name`` itself if the meta-architecture has none for it."""
    path = re.sub(r"(^|/)_", r"\1", name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"))
    path = _NUMBERED.sub(lambda match: f"{match[1]}s/{int(match[2]) - 1}", path)
    for pattern, ours in VARIABLES.get(system, []):
        if match := re.fullmatch(pattern, path):
            return match.expand(ours)
    place, _, leaf = path.rpartition("/")
    for rule, ours in _compiled_rules(system) if leaf in LEAVES else ():
        if match := rule.fullmatch(place):
            return f"{match.expand(ours)}.{LEAVES[leaf]}"
    return name


@cache
def _compiled_rules(system: str) -> list[tuple[re.Pattern, str]]:
    """RULES has more patterns than ``re`` keeps compiled, and is searched for every variable."""
    return [(re.compile(pattern), ours) for pattern, ours in RULES.get(system, [])]


def native_layout(native: str, name: str, value: torch.Tensor) -> torch.Tensor:
    """The ``value`` of the variable ``name`` in the layout of our tensor ``native``.

    There channels come last, in a kernel those of the input before those of the output.
    """
    leaf = name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").rpartition("/")[2]
    if leaf == "depthwise_kernel":  # (height, width, channels, 1)
        return value.permute(2, 3, 0, 1).contiguous()
    if leaf == "qkv_kernel":  # (in, out)
        return value.T.unsqueeze(-1).contiguous()
    if leaf == "kernel":  # (height, width, in, out), (length, in, out) or (in, out)
        value = value.permute(value.dim() - 1, value.dim() - 2, *range(value.dim() - 2))
        rows = value.dim() == 3 and _OF_PIXELS.match(native)
        return (value.unsqueeze(-1) if rows else value).contiguous()
    if native.endswith(("centers.weight", "memory.weight")):  # (1, queries, channels)
        return value.squeeze(0).T.contiguous()
    return value if leaf == "embeddings" else value.flatten()  # norms of heads have several sides
