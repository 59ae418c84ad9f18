"""Evaluation that Detectron2 lacks: panoptic results per class, ground truth out of panoptic."""

from .panoptic import PanopticEvaluator

__all__ = ["PanopticEvaluator"]
