"""Minimum-cost assignment of targets to queries."""

import torch
from scipy.optimize import linear_sum_assignment


def hungarian_match(cost: torch.Tensor, name: str = "") -> tuple[torch.Tensor, torch.Tensor]:
    """Query and target indices, each (min(Q, n),), of the assignment that minimises ``cost``.

    cost: (Q, n). Query indices ascend; with more targets than queries, the targets that fit
    worst stay without a query. FloatingPointError names the image ``name`` when the cost holds
    NaN or infinity.
    """
    if not torch.isfinite(cost).all():
        raise FloatingPointError(
            f"the predictions for image {name or '(unnamed)'} hold NaN or infinity and cannot be "
            "matched; lower SOLVER.BASE_LR, clip gradients, or look at this image"
        )
    queries, targets = linear_sum_assignment(cost.detach().cpu().double().numpy())
    device = cost.device
    return torch.as_tensor(queries, device=device), torch.as_tensor(targets, device=device)
