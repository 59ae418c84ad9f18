"""Evaluation with test-time augmentation beside the plain one (TEST.AUG)."""

import logging
import os
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from ..output_files import write_json
from ..prediction.augmented_semantic import AugmentedSemantic
from .evaluators import fitting_tasks
from .trainer import Trainer, inference_dir

logger = logging.getLogger(__name__)

SUFFIX = "_TTA"


def refuse_unfitting_augmentation(cfg: CfgNode) -> None:
    """ValueError unless the model and every data set of DATASETS.TEST do semantic segmentation."""
    tasks = list(cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS)
    if "semantic" not in tasks:
        raise ValueError(
            "TEST.AUG.ENABLED is for semantic segmentation, but MODEL.MASK_TRANSFORMER.TEST.TASKS "
            f"is {tasks}"
        )
    for name in cfg.DATASETS.TEST:
        fitting_tasks(_semantic_only(cfg), name)


def evaluate_with_augmentation(cfg: CfgNode, model: nn.Module, plain: dict) -> dict:
    """The ``plain`` results of ``Trainer.test`` with ``sem_seg_TTA`` beside ``sem_seg``.

    Both are written as ``results.json`` where the plain ones are; the predictions go into the
    folder ``TTA`` in OUTPUT_DIR. Raises as :func:`refuse_unfitting_augmentation`.
    """
    refuse_unfitting_augmentation(cfg)
    aug = cfg.TEST.AUG
    logger.info(f"Test-time augmentation: sizes {list(aug.MIN_SIZES)}, mirrored: {aug.FLIP}")
    augmented = Trainer.test(_semantic_only(cfg), AugmentedSemantic(cfg, model))
    if not comm.is_main_process():
        return {}
    names = list(cfg.DATASETS.TEST)
    if len(names) == 1:
        plain, augmented = {names[0]: plain}, {names[0]: augmented}
    results = {name: {**plain[name], **_renamed(augmented[name])} for name in names}
    for name, result in results.items():
        write_json(result, Path(inference_dir(cfg, name)) / "results.json")
        with_it, without = (result[f"sem_seg{s}"]["mIoU"] for s in (SUFFIX, ""))
        logger.info(f"{name}: mIoU {without:.2f}, with test-time augmentation {with_it:.2f}")
    return results[names[0]] if len(names) == 1 else results


def _renamed(results: dict) -> dict:
    return {f"{task}{SUFFIX}": values for task, values in results.items()}


def _semantic_only(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS = ["semantic"]
    cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, SUFFIX.strip("_"))
    cfg.freeze()
    return cfg
