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

import torch

from ..structures import Targets
from .pq_criterion import PQSetCriterion
from .segments import Segments


class MaXSetCriterion(PQSetCriterion):
    """Losses of one prediction; see :class:`PQSetCriterion`."""

    def semantic_pixels(self, segments: Segments, targets: Targets) -> torch.Tensor:
        """All pixels (k,) of one image that belong to a target."""
        return segments.inside
