"""Initial weights of Swin backbones: ImageNet's through timm, or a file in one of two namings."""

import re
from collections.abc import Mapping

import timm
import torch
from torch import nn

from .timm_weights import fill_model, imagenet_state_dict, read_weight_file

KEY = "MODEL.SWIN.WEIGHTS"
# Value of the key → end of the name of timm's pretrained model.
DATA_SETS = {"imagenet": "ms_in1k", "imagenet22k": "ms_in22k"}
_IMAGE_SIZES = {7: 224, 12: 384}
# The classifier with its norm; buffers that follow from the window and the image size.
_UNUSED = r"(?:head|norm)\.|.*\.(?:relative_position_index|attn_mask)$"


def load_swin_weights(model: nn.Module, variant: str, window_size: int, weights: str) -> None:
    """Fill the Swin backbone ``model`` in place; the norms of its outputs may stay as they are.

    ``weights`` is "" (nothing to do), "imagenet" (ImageNet-1K), "imagenet22k" or the path of a
    state dict in timm's or the authors' names.

    Raises:
        FileNotFoundError: ``weights`` is neither a known name nor a file.
        RuntimeError: timm cannot fetch the weights.
        ValueError: none were published for this variant and window; the file is no state dict;
            tensors are missing or of another shape.
    """
    if not weights:
        return
    if weights in DATA_SETS:
        name = timm_name(variant, window_size, weights)
        state = imagenet_state_dict(name, KEY)
    else:
        state = read_weight_file(weights, KEY, tuple(DATA_SETS))
    outputs = {k: v for k, v in model.state_dict().items() if re.match(r"norm\d\.", k)}
    source = f"{KEY} {weights!r} for Swin {variant} with window {window_size}"
    fill_model(model, {**outputs, **to_backbone_names(state)}, source)


def timm_name(variant: str, window_size: int, data_set: str) -> str:
    """timm's name of pretrained weights; ValueError when there are none."""
    size = _IMAGE_SIZES.get(window_size)
    name = f"swin_{variant}_patch4_window{window_size}_{size}.{DATA_SETS[data_set]}"
    known = timm.list_pretrained("swin_*patch4_window*")
    if name not in known:
        end = "." + DATA_SETS[data_set]
        published = ", ".join(n.removesuffix(end) for n in known if n.endswith(end))
        raise ValueError(
            f"{KEY} is {data_set!r}, but none are published for MODEL.SWIN.VARIANT {variant!r} "
            f"with MODEL.SWIN.WINDOW_SIZE {window_size}, only: {published}"
        )
    return name


def to_backbone_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of ``state`` that a backbone needs, in the authors' names.

    The authors count a merging step to the stage before it, timm to the stage after it.
    """
    timm_names = not any(name.startswith("layers.0.downsample.") for name in state)
    return {
        _previous_stage(name) if timm_names else name: value
        for name, value in state.items()
        if not re.match(_UNUSED, name)
    }


def _previous_stage(name: str) -> str:
    match = re.match(r"layers\.(\d+)(\.downsample\..*)", name)
    return f"layers.{int(match[1]) - 1}{match[2]}" if match else name
