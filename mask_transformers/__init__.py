"""Mask transformers for Detectron2: importing the package registers all parts and datasets."""

from ._require import require_detectron2

require_detectron2()

from . import backbones, data, meta_arch, pixel_decoders, transformer_decoders  # noqa: E402, F401
from . import checkpoint, model_zoo  # noqa: E402, F401
from .config import add_mask_transformer_config  # noqa: E402

__all__ = ["add_mask_transformer_config", "checkpoint", "model_zoo"]
