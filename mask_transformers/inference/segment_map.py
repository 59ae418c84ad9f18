"""A panoptic result that is put together segment by segment."""

from collections.abc import Collection

import torch


class SegmentMap:
    """Ids (H, W) int32, 0 for nothing, and per segment ``id``, ``isthing``, ``category_id``.

    Segments count from 1; stuff of one class is one segment.
    """

    def __init__(self, mask_logits: torch.Tensor, thing_classes: Collection[int]) -> None:
        """An empty one, as large as ``mask_logits`` (..., H, W) and on their device."""
        size = mask_logits.shape[-2:]
        self.ids = torch.zeros(size, dtype=torch.int32, device=mask_logits.device)
        self.segments: list[dict] = []
        self._things = thing_classes
        self._stuff_ids: dict[int, int] = {}

    def add(self, mask: torch.Tensor, label: int) -> None:
        """Give the pixels of ``mask`` (H, W) bool to a segment of the class ``label``."""
        identity = self._stuff_ids.get(label, len(self.segments) + 1)
        self.ids[mask] = identity
        if identity <= len(self.segments):
            return
        isthing = label in self._things
        if not isthing:
            self._stuff_ids[label] = identity
        self.segments.append({"id": identity, "isthing": isthing, "category_id": label})
