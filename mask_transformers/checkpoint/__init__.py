"""Checkpoints: official and other name maps, strict loading, published files, training."""

from .checkpointer import MaskTransformerCheckpointer
from .load import CheckpointMismatchError, LoadReport, load_official_state_dict
from .read import read_state_dict
from .transformers_layout import (
    from_transformers,
    load_transformers_state_dict,
    to_transformers,
)

__all__ = [
    "CheckpointMismatchError",
    "LoadReport",
    "MaskTransformerCheckpointer",
    "from_transformers",
    "load_official_state_dict",
    "load_transformers_state_dict",
    "read_state_dict",
    "to_transformers",
]
