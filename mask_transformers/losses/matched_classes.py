"""The class loss of matched queries, and the count that matched losses are divided by."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.utils import comm

from ..structures import BoxTargets, Targets

Match = tuple[torch.Tensor, torch.Tensor]  # query indices (n,), target indices (n,)


def class_loss(
    logits: torch.Tensor,
    targets: Sequence[Targets | BoxTargets],
    pairs: Sequence[Match],
    balance: torch.Tensor,
) -> torch.Tensor:
    """Cross entropy of ``logits`` (N, Q, K+1), where unmatched queries are no-object.

    ``balance`` (K+1,) weighs the classes, no-object last.
    """
    classes = logits.new_full(logits.shape[:2], logits.shape[-1] - 1, dtype=torch.long)
    for image, (queries, chosen) in enumerate(pairs):
        classes[image, queries] = targets[image].labels[chosen]
    return F.cross_entropy(logits.flatten(0, 1).float(), classes.flatten(), balance)


def class_balance(num_classes: int, no_object_weight: float) -> torch.Tensor:
    """Weights (K+1,) of the classes: one each, and that of no-object."""
    balance = torch.ones(num_classes + 1)
    balance[-1] = no_object_weight
    return balance


def mean_target_count(targets: Sequence[Targets | BoxTargets], device: torch.device) -> float:
    """Mean number of targets over all processes, at least one."""
    total = torch.tensor([float(sum(len(t.labels) for t in targets))], device=device)
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(total)
    return max(total.item() / comm.get_world_size(), 1.0)
