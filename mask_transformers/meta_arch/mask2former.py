"""Mask2Former (Cheng et al., CVPR 2022): masked attention over the levels of a pixel decoder.

The first auxiliary prediction comes from the raw queries, before any layer.
"""

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from ..losses.set_criterion import PointSetCriterion
from .mask_classifier import MaskClassifier


@META_ARCH_REGISTRY.register()
class Mask2Former(MaskClassifier):
    """Mask classification with losses on points; its idea is the masked-attention decoder."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments from a config; ValueError names the key of a contradictory value."""
        if cfg.MODEL.MASK_TRANSFORMER.MATCHER != "hungarian":
            raise ValueError("MODEL.MASK_TRANSFORMER.MATCHER of Mask2Former must be 'hungarian'")
        return super().from_config(cfg) | {"criterion": PointSetCriterion(cfg)}
