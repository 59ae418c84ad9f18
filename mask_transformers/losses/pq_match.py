"""Matching by the similarity that PQ measures (MaX-DeepLab, section "PQ-style loss")."""

from dataclasses import dataclass

import torch

from ..matching.costs import pq_cost
from ..matching.hungarian import hungarian_match
from ..structures import Targets
from .segments import Segments


@dataclass
class PQMatch:
    """Which query stands for which target of one image, and how well it does.

    The m pairs hold for all layers, and so do the numbers, which weigh losses without gradient.
    """

    queries: torch.Tensor  # (m,) ascending
    chosen: torch.Tensor  # (m,) indices of their targets
    probability: torch.Tensor  # (m,) of the class of the target
    dice: torch.Tensor  # (m,) of both masks
    void_share: torch.Tensor  # (Q,) share of each predicted mask where no target is


@torch.no_grad()
def pq_match(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, segments: Segments, targets: Targets
) -> PQMatch:
    """Pairs of the largest sum of class probability × dice; masks are a softmax over queries.

    class_logits (Q, K+1), mask_logits (Q, P). A target without a pixel in the grid stays without
    a query. FloatingPointError names the image where predictions are not finite.
    """
    overlap = segments.overlap(mask_logits.softmax(0))  # (Q, n+1)
    dice = segments.dice(overlap)  # (Q, n)
    seen = segments.areas.nonzero().flatten()
    cost = pq_cost(class_logits, targets.labels[seen], dice[:, seen])
    queries, columns = hungarian_match(cost, targets.name)
    chosen = seen[columns]
    smallest = torch.finfo(overlap.dtype).tiny  # masks can underflow
    return PQMatch(
        queries,
        chosen,
        class_logits.softmax(-1)[queries, targets.labels[chosen]],
        dice[queries, chosen],
        overlap[:, -1] / overlap.sum(1).clamp(min=smallest),
    )
