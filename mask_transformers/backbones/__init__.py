"""Backbones beyond Detectron2's own; importing registers them."""

from .swin import SwinBackbone, build_swin_backbone
from .timm import TimmBackbone, build_timm_backbone

__all__ = ["SwinBackbone", "TimmBackbone", "build_swin_backbone", "build_timm_backbone"]
