"""Losses of MaX-DeepLab where they differ from those that kMaX-DeepLab took over.

The PQ-style loss, mask-ID cross entropy and instance discrimination are the same, with the same
weights (3, 3, 0.3, 1 and 1 for the semantic head). What differs:

- Exclusion of masks is soft everywhere, a softmax over slots through which all of them learn; in
  kMaX-DeepLab the decoder assigns each pixel to its argmax, which has no gradient, and only masks
  that losses see are soft.
- There is one prediction, matched by itself; in kMaX-DeepLab the last layer's matching and weights
  hold for all layers.
- The semantic head learns from every pixel alike; in kMaX-DeepLab from a sample in which rare
  classes are as frequent as others.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ..layers.conv_norm import resize_aligned
from ..structures import Targets
from .pq_criterion import PQSetCriterion
from .segments import Segments

VOID = -1


class MaXSetCriterion(PQSetCriterion):
    """Losses of one prediction; see :class:`PQSetCriterion`."""

    def semantic_loss(
        self,
        logits: torch.Tensor,
        size: tuple[int, int],
        segments: Sequence[Segments],
        targets: Sequence[Targets],
    ) -> torch.Tensor:
        """Mean cross entropy over the pixels of each image that belong to a target, over images."""
        maps = resize_aligned(logits.float(), size).flatten(2)  # (N, K+1, P)
        values = []
        for image, segment, target in zip(maps.unbind(), segments, targets, strict=True):
            classes = torch.cat([target.labels, target.labels.new_tensor([VOID])])[segment.owner]
            total = F.cross_entropy(image[None], classes[None], ignore_index=VOID, reduction="sum")
            values.append(total / max(len(segment.inside), 1))
        return torch.stack(values).mean()
