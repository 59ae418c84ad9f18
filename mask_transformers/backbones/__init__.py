"""Backbones beyond Detectron2's own; importing registers them."""

from .timm import TimmBackbone, build_timm_backbone

__all__ = ["TimmBackbone", "build_timm_backbone"]
