"""Data sets: Detectron2's built-in names and ours, one's own data, and the embedded shapes."""

import detectron2.data  # noqa: F401  (registers its built-in names)

from . import (  # noqa: F401  (each registers its names)
    ade20k,
    cityscapes,
    coco_semantic,
    mapillary,
    shapes,
)
from .custom import register_boxes, register_instances, register_panoptic, register_semantic
from .folder import register_folder_of, use_folder
from .segment_counts import suggest_queries

__all__ = [
    "register_boxes",
    "register_folder_of",
    "register_instances",
    "register_panoptic",
    "register_semantic",
    "suggest_queries",
    "use_folder",
]
