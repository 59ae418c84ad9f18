"""The trainer: Detectron2's loop, hooks, writers and checkpoints with this package's parts."""

import contextlib
import logging
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer, TrainerBase, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import DatasetEvaluators
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch import nn

from ..checkpoint.checkpointer import MaskTransformerCheckpointer
from ..data.copy_paste import partnered_records
from ..data.datasets.absent_folder import require_folder_of
from ..data.mapper import MaskTransformerMapper
from ..output_files import write_json
from .evaluators import build_evaluators, fitting_tasks
from .optimizer import build_optimizer
from .schedule import BudgetLR, build_lr_scheduler
from .setup import set_up_logging
from .time_budget import BudgetMetricPrinter, Checkpoints, TimeBudget

logger = logging.getLogger(__name__)


class _OutOfTime(BaseException):
    """Leaves the training loop in good order; no ``Exception``, which would be logged as one."""


class Trainer(DefaultTrainer):
    """Detectron2's ``DefaultTrainer`` on CPU or GPU, one process or several.

    Mixed precision only on GPUs; ``SOLVER.MAX_MINUTES`` > 0 trains for a fixed time.
    """

    def __init__(self, cfg: CfgNode, clock: Callable[[], float] = time.monotonic) -> None:
        """Build everything from ``cfg``; ``clock`` (seconds) is that of the time budget."""
        # In place of DefaultTrainer's, which pins the model to a GPU whatever its device.
        TrainerBase.__init__(self)
        set_up_logging(cfg.OUTPUT_DIR)
        cfg = _without_unsupported_amp(
            self.auto_scale_workers(cfg, comm.get_world_size()), torch.device(cfg.MODEL.DEVICE)
        )
        _check_frozen(cfg)
        require_folder_of(cfg)
        for name in cfg.DATASETS.TEST:
            fitting_tasks(cfg, name)  # an error now, not after hours
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        model = _distribute(model, torch.device(cfg.MODEL.DEVICE))
        loop = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = loop(model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = MaskTransformerCheckpointer(
            model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self._clock = clock
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """See ``engine.optimizer.build_optimizer``."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
        """See ``engine.schedule.build_lr_scheduler``."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        """Detectron2's loader with ``MaskTransformerMapper``, of partners for copy-paste too."""
        if not cfg.DATASETS.TRAIN:
            raise ValueError("DATASETS.TRAIN is empty: there is nothing to train on")
        mapper = MaskTransformerMapper(cfg, is_train=True)
        return build_detection_train_loader(cfg, mapper=mapper, dataset=partnered_records(cfg))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        """Detectron2's loader with ``MaskTransformerMapper``, which reads no labels in a test."""
        mapper = MaskTransformerMapper(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluators:
        """See ``engine.evaluators.build_evaluators``."""
        return build_evaluators(cfg, dataset_name, inference_dir(cfg, dataset_name))

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> dict:
        """Evaluate on ``DATASETS.TEST``; results are logged and written once, as JSON."""
        require_folder_of(cfg)
        _share_buffers(model)
        results = super().test(cfg, model, evaluators)
        if comm.is_main_process():
            names = list(cfg.DATASETS.TEST)
            by_name = {names[0]: results} if len(names) == 1 else results
            for name, result in by_name.items():
                write_json(result, Path(inference_dir(cfg, name)) / "results.json")
        return results

    def build_hooks(self) -> list[hooks.HookBase]:
        """Detectron2's hooks; those that depend on the end of training know the time budget."""
        built = [hook for hook in super().build_hooks() if hook is not None]
        for i, hook in enumerate(built):
            if isinstance(hook, hooks.PeriodicCheckpointer):
                built[i] = Checkpoints(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD)
        if isinstance(self.scheduler, BudgetLR):
            built.insert(0, TimeBudget(self.scheduler, self._clock))
        return built

    def build_writers(self) -> list[EventWriter]:
        """Console, ``metrics.json`` and TensorBoard."""
        writers = super().build_writers()
        if isinstance(self.scheduler, BudgetLR):
            writers[0] = BudgetMetricPrinter(self.max_iter, self.scheduler)
        return writers

    def train(self) -> dict | None:
        """Train until ``SOLVER.MAX_ITER`` or the end of the time budget; the last evaluation."""
        if isinstance(self.scheduler, BudgetLR) and self.scheduler.expired:
            logger.info("The time budget is used up already: no more training")
            self.max_iter = min(self.max_iter, self.start_iter)
        with contextlib.suppress(_OutOfTime):
            super().train()
        return getattr(self, "_last_eval_results", None)

    def after_step(self) -> None:
        """Run the hooks; leave the loop if one of them has made this the last iteration."""
        super().after_step()
        if self.iter + 1 == self.max_iter < self.cfg.SOLVER.MAX_ITER:
            self.iter += 1
            raise _OutOfTime


def inference_dir(cfg: CfgNode, dataset_name: str) -> str:
    """Where the results on a data set are written."""
    return os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)


def _check_frozen(cfg: CfgNode) -> None:
    if cfg.MODEL.MASK_TRANSFORMER.MASK_HEAD.FREEZE_DETECTOR and not cfg.MODEL.WEIGHTS:
        raise ValueError(
            "MODEL.MASK_TRANSFORMER.MASK_HEAD.FREEZE_DETECTOR needs MODEL.WEIGHTS of a detector"
        )


def _without_unsupported_amp(cfg: CfgNode, device: torch.device) -> CfgNode:
    if not cfg.SOLVER.AMP.ENABLED or device.type == "cuda":
        return cfg
    logger.info(f"SOLVER.AMP.ENABLED has no effect on {device.type}: training in full precision")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.AMP.ENABLED = False
    cfg.freeze()
    return cfg


def _distribute(model: nn.Module, device: torch.device) -> nn.Module:
    devices = [comm.get_local_rank()] if device.type == "cuda" else None
    return create_ddp_model(model, broadcast_buffers=False, device_ids=devices)


@torch.no_grad()
def _share_buffers(model: nn.Module) -> None:
    """Give all processes the batch-norm statistics of the first one, whose model is saved."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)
