"""Training and evaluation around Detectron2's engine."""

from .evaluators import build_evaluators
from .launch import launch
from .optimizer import build_optimizer
from .schedule import build_lr_scheduler
from .setup import build_config
from .trainer import Trainer
from .weights import load_weights

__all__ = [
    "Trainer",
    "build_config",
    "build_evaluators",
    "build_lr_scheduler",
    "build_optimizer",
    "launch",
    "load_weights",
]
