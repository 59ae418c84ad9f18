"""Mask transformers for Detectron2: importing the package registers all parts and datasets."""

from ._require import require_detectron2

require_detectron2()

from . import (  # noqa: E402
    backbones,
    checkpoint,
    data,
    meta_arch,
    model_zoo,
    pixel_decoders,
    transformer_decoders,
)
from .config import add_mask_transformer_config  # noqa: E402

__all__ = [
    "add_mask_transformer_config",
    "backbones",
    "checkpoint",
    "data",
    "meta_arch",
    "model_zoo",
    "pixel_decoders",
    "transformer_decoders",
]
