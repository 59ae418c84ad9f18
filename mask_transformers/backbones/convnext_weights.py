"""Initial weights of ConvNeXt backbones: ImageNet's through timm, or a file in two namings."""

import re
from collections.abc import Mapping

import torch
from torch import nn

from .timm_weights import fill_model, imagenet_state_dict, read_weight_file

KEY = "MODEL.CONVNEXT.WEIGHTS"
# Value of the key → end of the name of timm's pretrained model.
DATA_SETS = {"imagenet": "fb_in1k", "imagenet22k": "fb_in22k"}
# Parts of names of timm (the first three) and of the authors → parts of ours.
_NAMES = [
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
]


def load_convnext_weights(model: nn.Module, variant: str, weights: str) -> None:
    """Fill the ConvNeXt backbone ``model`` in place.

    ``weights`` is "" (nothing to do), "imagenet" (ImageNet-1K), "imagenet22k" or the path of a
    state dict in timm's or the authors' names.

    Raises:
        FileNotFoundError: ``weights`` is neither a known name nor a file.
        RuntimeError: timm cannot fetch the weights.
        ValueError: the file is no state dict; tensors are missing or of another shape.
    """
    if not weights:
        return
    if weights in DATA_SETS:
        state = imagenet_state_dict(f"convnext_{variant}.{DATA_SETS[weights]}", KEY)
    else:
        state = read_weight_file(weights, KEY, tuple(DATA_SETS))
    fill_model(model, to_backbone_names(state), f"{KEY} {weights!r} for ConvNeXt {variant}")


def to_backbone_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` with the names of our backbone; what only a classifier has keeps its name."""
    return {_backbone_name(name): value for name, value in state.items()}


def _backbone_name(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name
