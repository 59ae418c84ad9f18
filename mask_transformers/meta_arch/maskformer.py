"""MaskFormer (Cheng et al., NeurIPS 2021): semantic segmentation as mask classification.

Not a class for every pixel, but pairs of a mask and one class for all of it, predicted apart and
joined only at inference: by their product (section 3.4).
"""

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from ..losses.mask_criterion import MaskSetCriterion
from .base import in_fast_layout
from .mask_classifier import MaskClassifier


@META_ARCH_REGISTRY.register()
class MaskFormer(MaskClassifier):
    """Mask classification with losses on whole masks and DETR's decoder."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments from a config; ValueError names the key of a contradictory value."""
        node = cfg.MODEL.MASK_TRANSFORMER
        if node.MATCHER == "fixed" and node.QUERIES != node.NUM_CLASSES:
            raise ValueError(
                f"MODEL.MASK_TRANSFORMER.MATCHER 'fixed' needs one query a class: QUERIES is "
                f"{node.QUERIES}, NUM_CLASSES is {node.NUM_CLASSES}"
            )
        if node.MATCHER == "fixed" and cfg.INPUT.ANNOTATIONS != "semantic":
            raise ValueError(
                "MODEL.MASK_TRANSFORMER.MATCHER 'fixed' has one query for all of a class: "
                f"INPUT.ANNOTATIONS must be 'semantic', not {cfg.INPUT.ANNOTATIONS!r}"
            )
        # The panoptic merge takes the argmax alone.
        return super().from_config(cfg) | {
            "criterion": MaskSetCriterion(cfg),
            "pixel_threshold": 0.0,
        }

    def _network(self, images: torch.Tensor):
        # Convolutions take most of its time.
        return super()._network(in_fast_layout(images))
