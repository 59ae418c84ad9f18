"""Data: the mapper, its augmentations, and the data sets, which importing this registers."""

from . import datasets
from .augmentations import build_augmentations
from .mapper import MaskTransformerMapper

__all__ = ["MaskTransformerMapper", "build_augmentations", "datasets"]
