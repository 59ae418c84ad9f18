"""Detectron2's ResNet with the batch norms of kMaX-DeepLab."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import ResNet, build_resnet_backbone
from torch import nn

from ..layers.conv_norm import SyncNorm


@BACKBONE_REGISTRY.register()
def build_kmax_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """A ResNet whose batch norms are :class:`SyncNorm`, with the authors' constants.

    They need no GPU, and are plain batch norms on one process. ValueError unless
    MODEL.RESNETS.NORM is "SyncBN".
    """
    norm = cfg.MODEL.RESNETS.NORM
    if norm != "SyncBN":
        raise ValueError(
            f'build_kmax_resnet_backbone needs MODEL.RESNETS.NORM "SyncBN", not {norm!r}'
        )
    freeze_at = cfg.MODEL.BACKBONE.FREEZE_AT
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.BACKBONE.FREEZE_AT = 0  # freezing copies the constants, so it comes last
    backbone = build_resnet_backbone(cfg, input_shape)
    for module in backbone.modules():
        if isinstance(getattr(module, "norm", None), nn.SyncBatchNorm):
            module.norm = SyncNorm(module.norm.num_features)
    return backbone.freeze(freeze_at)
