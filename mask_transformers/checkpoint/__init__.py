"""Checkpoints: official name maps, strict loading, published files, saving in training."""

from .checkpointer import MaskTransformerCheckpointer
from .load import CheckpointMismatchError, LoadReport, load_official_state_dict
from .read import read_state_dict

__all__ = [
    "CheckpointMismatchError",
    "LoadReport",
    "MaskTransformerCheckpointer",
    "load_official_state_dict",
    "read_state_dict",
]
