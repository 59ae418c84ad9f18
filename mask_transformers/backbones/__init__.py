"""Backbones beyond Detectron2's own; importing registers them."""

import detectron2.projects.deeplab  # noqa: F401  (registers build_resnet_deeplab_backbone)

from .convnext import ConvNeXtBackbone, build_convnext_backbone
from .dilated_resnet import build_dilated_resnet_backbone
from .kmax_resnet import build_kmax_resnet_backbone
from .max_resnet import MaXResNet, build_max_resnet_backbone
from .max_timm import MaXTimm, build_max_timm_backbone
from .swin import SwinBackbone, build_swin_backbone
from .timm import TimmBackbone, build_timm_backbone

__all__ = [
    "ConvNeXtBackbone",
    "MaXResNet",
    "MaXTimm",
    "SwinBackbone",
    "TimmBackbone",
    "build_convnext_backbone",
    "build_dilated_resnet_backbone",
    "build_kmax_resnet_backbone",
    "build_max_resnet_backbone",
    "build_max_timm_backbone",
    "build_swin_backbone",
    "build_timm_backbone",
]
