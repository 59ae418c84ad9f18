"""Checkpoints: official name maps, strict loading, published files."""

from .load import CheckpointMismatchError, LoadReport, load_official_state_dict, read_state_dict

__all__ = [
    "CheckpointMismatchError",
    "LoadReport",
    "load_official_state_dict",
    "read_state_dict",
]
