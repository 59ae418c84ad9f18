"""Training for a fixed time (``SOLVER.MAX_MINUTES``): the clock, the end and the ETA."""

import logging
import time
from collections.abc import Callable

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter

from .schedule import BudgetLR

logger = logging.getLogger(__name__)


class TimeBudget(HookBase):
    """Keeps the clock of a ``BudgetLR`` and ends training when its budget is used up.

    It must come first of all hooks: when the time is over it makes the present iteration the
    last one, which the hooks after it then treat so.
    """

    def __init__(self, schedule: BudgetLR, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` returns seconds; only differences count."""
        self._schedule = schedule
        self._clock = clock
        self._start = 0.0

    def before_train(self) -> None:
        """Start the clock, at the time that earlier runs have used."""
        self._start = self._clock() - self._schedule.elapsed_seconds

    def after_step(self) -> None:
        """Note the time, and stop when it is over."""
        elapsed = _of_main_process(self._clock() - self._start, self.trainer.model)
        self._schedule.elapsed_seconds = elapsed
        if self._schedule.expired and self.trainer.iter + 1 < self.trainer.max_iter:
            logger.info(f"The time budget ends training after iteration {self.trainer.iter}")
            self.trainer.max_iter = self.trainer.iter + 1


def _of_main_process(seconds: float, model: torch.nn.Module) -> float:
    """All processes must agree on the rate, and stop at the same iteration."""
    if comm.get_world_size() == 1:
        return seconds
    device = next(model.parameters()).device
    value = torch.tensor([seconds], dtype=torch.float64, device=device)
    torch.distributed.broadcast(value, src=0)
    return value.item()


class Checkpoints(hooks.PeriodicCheckpointer):
    """Detectron2's periodic checkpoints, with the final one where training really ends."""

    def after_step(self) -> None:
        """Save when it is time to."""
        self.max_iter = self.trainer.max_iter
        super().after_step()


class BudgetMetricPrinter(CommonMetricPrinter):
    """Prints the progress; the ETA is bounded by the time that is left."""

    def __init__(self, max_iter: int, schedule: BudgetLR) -> None:
        super().__init__(max_iter)
        self._schedule = schedule
        self._finished = False

    def write(self) -> None:
        """Print, but nothing more once the end of the time has been printed."""
        if not self._finished:
            super().write()
        self._finished = self._schedule.expired

    def _get_eta(self, storage) -> str | None:
        eta = super()._get_eta(storage)
        left = max(self._schedule.budget_seconds - self._schedule.elapsed_seconds, 0.0)
        known = storage.latest().get("eta_seconds")
        if known is not None and known[0] <= left:
            return eta
        storage.put_scalar("eta_seconds", left, smoothing_hint=False)
        hours, seconds = divmod(int(left), 3600)
        return f"{hours}:{seconds // 60:02d}:{seconds % 60:02d}"
