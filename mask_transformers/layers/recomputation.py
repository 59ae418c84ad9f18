"""Activation checkpointing of modules with batch norms."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, *inputs: torch.Tensor):
    """``module(*inputs)``, computed again in the backward pass: less memory, more time.

    Results, gradients and the statistics of batch norms are the same as without.
    """
    if not torch.is_grad_enabled():
        return module(*inputs)
    return checkpoint(
        module,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _statistics_kept(module)),
    )


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Norms use the statistics of the batch as before, but don't count the batch twice."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.momentum, norm.track_running_stats = 0.0, False
    try:
        yield
    finally:
        for norm, (momentum, tracks) in zip(norms, before, strict=True):
            norm.momentum, norm.track_running_stats = momentum, tracks
