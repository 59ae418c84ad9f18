"""Fixed matching (MaskFormer, section 3.2 and table 4b): query i stands for class i."""

import torch

from ..structures import Targets


def fixed_match(queries: int, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and target indices, each (n,), in ascending order of the queries.

    ValueError names the image that holds a class twice, which one query cannot stand for, or a
    class without a query.
    """
    labels, chosen = targets.labels.sort()
    if len(labels.unique()) < len(labels):
        raise ValueError(
            f"image {targets.name or '(unnamed)'} holds a class several times: fixed matching "
            "(MODEL.MASK_TRANSFORMER.MATCHER) needs semantic annotations"
        )
    if len(labels) and int(labels[-1]) >= queries:
        raise ValueError(
            f"image {targets.name or '(unnamed)'} holds class {int(labels[-1])}, but fixed "
            f"matching has {queries} queries"
        )
    return labels, chosen
