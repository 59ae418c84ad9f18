"""Official tensor names to ours: one table of rewriting rules per system."""

import re
from collections.abc import Mapping

import torch

from ..read import as_tensor
from . import deeplab2, detr, kmax, mask2former, maskformer

# Meta-architecture → rules (pattern, replacement), the first match counts; None drops a tensor.
RULES: dict[str, list[tuple[str, str | None]]] = {
    "Mask2Former": mask2former.RULES,
    "MaskFormer": maskformer.RULES,
    "PerPixelBaseline": maskformer.PER_PIXEL_RULES,
    "DETR": detr.RULES,
    "KMaXDeepLab": kmax.RULES,
}


def native_name(system: str, name: str) -> str | None:
    """Our name of the official tensor ``name``; None for one that no model needs.

    Names that are no official ones, ours among them, come back unchanged.
    """
    if deeplab2.is_deeplab2(name):
        return deeplab2.native_name(system, name)
    for pattern, replacement in RULES.get(system, []):
        if re.match(pattern, name):
            return None if replacement is None else re.sub(pattern, replacement, name, count=1)
    return name


def to_native_names(system: str, state_dict: Mapping) -> dict:
    """``state_dict`` with our names, and our layouts where it is one of TensorFlow.

    ValueError when two official names mean one tensor.
    """
    native: dict = {}
    for name, tensor in state_dict.items():
        new = native_name(system, name)
        if new is None:
            continue
        if new in native:
            raise ValueError(f"the checkpoint holds {new} twice, the second time as {name}")
        native[new] = tensor
        if deeplab2.is_deeplab2(name) and new != name:
            native[new] = deeplab2.native_layout(new, name, as_tensor(name, tensor))
            if new.endswith(".running_mean"):  # TensorFlow counts no batches
                native[new.replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
    return native
