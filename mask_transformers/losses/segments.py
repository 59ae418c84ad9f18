"""Ground truth whose masks exclude each other, as those of MaX-DeepLab and kMaX-DeepLab do.

Every pixel of the mask grid belongs to one target or to none. Where annotations cover the image the
latter are void: they hold nothing to learn about masks. Where they are instances alone the latter
are background, which no mask of a target may take.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass
class Segments:
    """The n targets of one image as a partition of the P = h·w pixels of the mask grid."""

    owner: torch.Tensor  # (P,) int64, index of the target of each pixel, n for none
    membership: torch.Tensor  # (P, n+1) float, the same as one-hot rows
    background: bool = False  # whether pixels without a target are that, and not void

    @property
    def areas(self) -> torch.Tensor:
        """Pixels of each target, (n,) float; 0 for one that is too small for the grid."""
        return self.membership[:, :-1].sum(0)

    @property
    def inside(self) -> torch.Tensor:
        """Indices of the pixels that belong to a target, ascending."""
        return (self.owner < self.membership.shape[1] - 1).nonzero().flatten()

    def overlap(self, masks: torch.Tensor) -> torch.Tensor:
        """Sums of soft masks (M, P) over each target and, last, over other pixels: (M, n+1)."""
        return masks @ self.membership

    def dice(self, overlap: torch.Tensor, smooth: float = 0.0) -> torch.Tensor:
        """Dice of M soft masks and the targets, (M, n), from their :meth:`overlap`.

        Pixels in void count in neither size. ``smooth`` is added above and below.
        """
        common = overlap[:, :-1]
        counted = overlap if self.background else common
        sizes = counted.sum(1, keepdim=True) + self.areas
        return (2 * common + smooth) / (sizes + smooth)


def partition(masks: torch.Tensor, size: Sequence[int], background: bool = False) -> Segments:
    """Masks (n, H, W) bool on a grid of ``size`` (h, w); where they overlap the first one has it.

    Each pixel of the grid takes the pixel of the image where ``resize_aligned`` puts it.
    """
    aligned = size[-1] % 2 == 1
    rows, columns = (
        _nearest(length, number, aligned).to(masks.device)
        for length, number in zip(masks.shape[1:], size, strict=True)
    )
    small = masks[:, rows][:, :, columns].flatten(1)  # (n, P)
    void = small.new_ones(1, small.shape[1])
    owner = torch.cat([small, void]).to(torch.uint8).argmax(0)  # the first of equal ones
    membership = torch.zeros(len(owner), len(small) + 1, device=owner.device)
    return Segments(owner, membership.scatter_(1, owner[:, None], 1.0), background)


def _nearest(length: int, number: int, aligned: bool) -> torch.Tensor:
    """Where ``number`` samples of ``length`` pixels lie: (number,) int64.

    Aligned as ``resize_aligned`` aligns predictions: 321 of 1281 are every fourth pixel.
    """
    index = torch.arange(number)
    if aligned:
        return (index * (length - 1) / max(number - 1, 1)).round().long()
    return ((index + 0.5) * length / number).long()
