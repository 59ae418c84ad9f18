"""Rules between our names and those of the library `transformers`, and parts that models share.

A rule is a pair of beginnings of names, the rest of which is the same; the first rule that fits
counts. ``{i}`` stands for a number, and ``{q|k|v}`` for names that share the rows of one tensor
of ours.
"""

Rule = tuple[str, str]


def below(ours: str, theirs: str, names: dict[str, str]) -> list[Rule]:
    """Rules for ``names`` of which ours stand below ``ours`` and theirs below ``theirs``."""
    return [(ours + our_name, theirs + their_name) for our_name, their_name in names.items()]


TAKEN_APART = {
    "in_proj_weight": "{q|k|v}_proj.weight",
    "in_proj_bias": "{q|k|v}_proj.bias",
    "out_proj.": "out_proj.",
}

_STEM = {
    "conv1.norm.": "embedder.embedder.normalization.",
    "conv1.": "embedder.embedder.convolution.",
}
_BLOCK = {
    "conv1.norm.": "layer.0.normalization.",
    "conv1.": "layer.0.convolution.",
    "conv2.norm.": "layer.1.normalization.",
    "conv2.": "layer.1.convolution.",
    "conv3.norm.": "layer.2.normalization.",
    "conv3.": "layer.2.convolution.",
    "shortcut.norm.": "shortcut.normalization.",
    "shortcut.": "shortcut.convolution.",
}
_TIMM_STEM = {"conv1.norm.": "bn1.", "conv1.": "conv1."}
_TIMM_BLOCK = {
    "conv1.norm.": "bn1.",
    "conv1.": "conv1.",
    "conv2.norm.": "bn2.",
    "conv2.": "conv2.",
    "conv3.norm.": "bn3.",
    "conv3.": "conv3.",
    "shortcut.norm.": "downsample.1.",
    "shortcut.": "downsample.0.",
}


def resnet(place: str) -> list[Rule]:
    """Rules for the ResNet of transformers itself, ``place``."""
    rules = below("backbone.stem.", place, _STEM)
    for stage in range(4):
        theirs = f"{place}encoder.stages.{stage}.layers.{{i}}."
        rules += below(f"backbone.res{stage + 2}.{{i}}.", theirs, _BLOCK)
    return rules


def timm_resnet(place: str) -> list[Rule]:
    """Rules for a ResNet of the library timm, which transformers can take in its place."""
    rules = below("backbone.stem.", place, _TIMM_STEM)
    for stage in range(4):
        theirs = f"{place}layer{stage + 1}.{{i}}."
        rules += below(f"backbone.res{stage + 2}.{{i}}.", theirs, _TIMM_BLOCK)
    return rules
