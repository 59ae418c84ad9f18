"""Where the tokens of a feature map lie, and which of them belong to an image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .position_encoding import sine_position_encoding, token_positions


@dataclass
class PixelGrid:
    """Tokens of a map (N, C, h, w), row by row."""

    position: torch.Tensor  # (1 or N, L, C)
    inside: torch.Tensor | None = None  # (N, 1, L) bool, False in padding; None: there is none


def full_grid(level: torch.Tensor, channels: int) -> PixelGrid:
    """The grid of a map (N, C', h, w) without padding; ``channels`` C of the positions."""
    return PixelGrid(token_positions(*level.shape[-2:], channels, level.device))


def padded_grid(
    level: torch.Tensor,
    channels: int,
    images: Sequence[tuple[int, int]],
    padded: tuple[int, int],
) -> PixelGrid:
    """The grid of a map (N, C', h, w) of images that are padded to one size.

    ``images`` are their own (height, width), ``padded`` is the common one, in pixels. Positions run
    over each image alone, so that it has the same ones in every batch (DETR, supplement, A.4).
    """
    if all(size == padded for size in images):
        return full_grid(level, channels)
    height, width = level.shape[-2:]
    maps, masks = [], []
    for image in images:
        # As many rows and columns as have their first pixel in the image.
        h = -(-image[0] * height // padded[0])
        w = -(-image[1] * width // padded[1])
        padding = (0, width - w, 0, height - h)
        maps.append(F.pad(sine_position_encoding(h, w, channels, level.device), padding))
        masks.append(F.pad(maps[-1].new_ones(h, w, dtype=torch.bool), padding))
    position = torch.cat(maps).flatten(2).transpose(1, 2)
    return PixelGrid(position, torch.stack(masks).flatten(1)[:, None])
