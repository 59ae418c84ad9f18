"""Learning-rate schedules: by iterations, or by the time of a fixed budget."""

import math

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.solver import build_lr_scheduler as build_iteration_scheduler
from fvcore.common.param_scheduler import ParamScheduler, PolynomialDecayParamScheduler

_SCHEDULES = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR", "WarmupPolyLR")
_WARMUPS = ("linear", "constant")


class BudgetLR(LRMultiplier):
    """A schedule that anneals fully within a time budget; the warm-up is by iterations.

    Its progress is ``max(iteration / max_iter, elapsed_seconds / budget_seconds)``.
    ``elapsed_seconds`` is set from outside and saved, so that a resumed run goes on with it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        multiplier: ParamScheduler,
        max_iter: int,
        budget_seconds: float,
        warmup_iters: int = 0,
        warmup_factor: float = 0.0,
        warmup_method: str = "linear",
    ) -> None:
        """``multiplier`` maps progress in [0, 1) to a factor of all rates, without warm-up."""
        if warmup_method not in _WARMUPS:
            raise ValueError(f"SOLVER.WARMUP_METHOD is {warmup_method!r}; known: {_WARMUPS}")
        self.budget_seconds = budget_seconds
        self.elapsed_seconds = 0.0
        self._warmup = (warmup_iters, warmup_factor, warmup_method)
        super().__init__(optimizer, multiplier, max_iter)

    @property
    def expired(self) -> bool:
        """Whether the budget is used up."""
        return self.elapsed_seconds >= self.budget_seconds

    def state_dict(self) -> dict:
        """State of the schedule and the time used so far."""
        return {**super().state_dict(), "elapsed_seconds": self.elapsed_seconds}

    def get_lr(self) -> list[float]:
        """Rates of the groups at the present iteration and time."""
        by_time = self.elapsed_seconds / self.budget_seconds
        # Not all of fvcore's schedules are defined at 1.
        progress = min(max(self.last_epoch / self._max_iter, by_time), math.nextafter(1.0, 0.0))
        factor = self._multiplier(progress) * self._warmup_factor()
        return [base * factor for base in self.base_lrs]

    def _warmup_factor(self) -> float:
        iters, start, method = self._warmup
        if self.last_epoch >= iters:
            return 1.0
        if method == "constant":
            return start
        return start + (1 - start) * self.last_epoch / iters


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
    """The schedule of ``SOLVER.LR_SCHEDULER_NAME``: Detectron2's, and ``WarmupPolyLR``.

    ``SOLVER.MAX_MINUTES`` > 0 makes it follow the time (``BudgetLR``). All groups keep their
    relative rates.
    """
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME not in _SCHEDULES:
        raise ValueError(
            f"SOLVER.LR_SCHEDULER_NAME is {solver.LR_SCHEDULER_NAME!r}; known: {_SCHEDULES}"
        )
    if solver.MAX_MINUTES > 0:
        return BudgetLR(
            optimizer,
            _annealing(cfg),
            max_iter=solver.MAX_ITER,
            budget_seconds=60 * solver.MAX_MINUTES,
            warmup_iters=solver.WARMUP_ITERS,
            warmup_factor=solver.WARMUP_FACTOR,
            warmup_method=solver.WARMUP_METHOD,
        )
    if solver.LR_SCHEDULER_NAME != "WarmupPolyLR":
        return build_iteration_scheduler(cfg, optimizer)  # type: ignore[return-value]
    multiplier = WarmupParamScheduler(
        _annealing(cfg),
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier, max_iter=solver.MAX_ITER)


def _annealing(cfg: CfgNode) -> ParamScheduler:
    """Progress to factor, without warm-up."""
    if cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupPolyLR":
        return PolynomialDecayParamScheduler(1.0, cfg.SOLVER.POLY_POWER)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.WARMUP_ITERS = 0
    # Detectron2 only hands out schedules that are bound to an optimizer.
    bound = build_iteration_scheduler(cfg, torch.optim.SGD([torch.zeros(1)], lr=1.0))
    return bound._multiplier  # type: ignore[attr-defined]
