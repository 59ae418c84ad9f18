"""Losses of masks that exclude each other: the softmax over queries at every pixel."""

import torch
import torch.nn.functional as F

from .pq_match import PQMatch
from .segments import Segments

NOBODY = -1  # the query of a pixel that has none


def mask_id_and_dice(
    logits: torch.Tensor, segments: Segments, match: PQMatch
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two mask losses of one image from its mask ``logits`` (Q, P).

    Mask-ID cross entropy (MaX-DeepLab, "auxiliary losses"), the mean over all pixels that belong
    to a matched target; and the sum over pairs of class probability × (1 - dice), with one added
    above and below in dice (V-Net). Both are 0, and part of the graph, without pairs.
    """
    log_probability = logits.log_softmax(0)
    pairs = torch.arange(len(match.queries), device=logits.device)
    overlap = segments.overlap(log_probability[match.queries].exp())  # (m, n+1)
    dice = segments.dice(overlap, smooth=1.0)[pairs, match.chosen]
    return (
        _mask_id_loss(log_probability, _queries_of_pixels(segments, match)),
        (match.probability * (1 - dice)).sum(),
    )


def _queries_of_pixels(segments: Segments, match: PQMatch) -> torch.Tensor:
    """(P,): the query that stands for the target of each pixel, or NOBODY."""
    query_of = segments.owner.new_full(segments.membership.shape[1:], NOBODY)
    query_of[match.chosen] = match.queries
    return query_of[segments.owner]


def _mask_id_loss(log_probability: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    total = F.nll_loss(
        log_probability[None], wanted[None], ignore_index=NOBODY, reduction="sum"
    )  # over (1, Q, P)
    return total / (wanted != NOBODY).sum().clamp(min=1)
