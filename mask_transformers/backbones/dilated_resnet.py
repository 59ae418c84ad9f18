"""Detectron2's ResNet with its last stage dilated as torchvision does: the C5 of DETR's DC5.

Both leave out the stride of res5 and dilate its 3x3 convolutions instead. Detectron2 begins with
the first block; in torchvision that one keeps its dilation of 1, as the features before it have
the finer stride already.
"""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import ResNet, build_resnet_backbone


@BACKBONE_REGISTRY.register()
def build_dilated_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """A ResNet whose res5 has stride 16; ValueError names the key that rules it out."""
    resnets = cfg.MODEL.RESNETS
    for key, fits, wanted in (
        ("RES5_DILATION", resnets.RES5_DILATION == 2, "2"),
        ("DEPTH", resnets.DEPTH >= 50, "50 or more"),
        ("OUT_FEATURES", "res5" in resnets.OUT_FEATURES, "with res5"),
    ):
        if not fits:
            raise ValueError(
                f"build_dilated_resnet_backbone needs MODEL.RESNETS.{key} {wanted}, "
                f"not {resnets[key]}"
            )
    backbone = build_resnet_backbone(cfg, input_shape)
    first = backbone.res5[0].conv2
    first.dilation = first.padding = (1, 1)
    return backbone
