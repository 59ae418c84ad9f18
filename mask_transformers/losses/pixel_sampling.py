"""Pixels drawn at random, small regions as often as large ones, and values of maps there."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def gumbel_top_k(log_weights: torch.Tensor, number: int) -> torch.Tensor:
    """Indices of ``number`` of P entries, without repetition, by their ``log_weights`` (P,).

    Gumbel noise makes the largest a sample: one after the other is drawn with a probability
    in proportion to its weight (Kool et al., 2019).
    """
    noise = -torch.empty_like(log_weights).exponential_().log_()
    return (log_weights + noise).topk(number, sorted=False).indices


def class_areas(labels: torch.Tensor, areas: torch.Tensor) -> torch.Tensor:
    """For each of n targets the pixels of all targets of its class: (n,) and (n,) to (n,)."""
    return (labels[:, None] == labels).to(areas.dtype) @ areas


def resized_values(maps: torch.Tensor, pixels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """``resize_aligned`` of ``maps`` (C, h, w) to ``size``, computed at ``pixels`` (k,) alone.

    Pixels are counted row by row in the grid of ``size`` (H, W). Returns (C, k).
    """
    if tuple(maps.shape[1:]) == tuple(size):
        return maps.flatten(1)[:, pixels]
    aligned = maps.shape[-1] % 2 == 1
    height, width = size
    x, y = pixels % width, pixels // width
    grid = torch.stack([_position(x, width, aligned), _position(y, height, aligned)], 1)
    return F.grid_sample(
        maps[None], grid[None, None].to(maps), padding_mode="border", align_corners=aligned
    )[0, :, 0]


def _position(index: torch.Tensor, length: int, aligned: bool) -> torch.Tensor:
    """Coordinates in [-1, 1], the corner pixels' centres or else their outer edges."""
    return 2 * index / max(length - 1, 1) - 1 if aligned else (2 * index + 1) / length - 1
