"""Windows of Swin Transformer maps (Liu et al., ICCV 2021, Section 3.2): cut, join, shift, mask.

Letters: N batch, H×W map, C channels, w window side, L = w² tokens of a window, B windows.

After a cyclic shift the last row and the last column of windows hold tokens of opposite borders,
which must not see each other. What is masked there depends on the window alone, so that one mask
for each of four kinds of windows is enough, whatever the size of the map.
"""

import torch
from torch.nn import functional as F

# Added to the similarity of tokens that must not see each other; published weights know this one.
MASKED = -100.0


def pad_to_windows(x: torch.Tensor, window: int) -> torch.Tensor:
    """(N, H, W, C) with zeros at the bottom and right, up to multiples of ``window``."""
    height, width = x.shape[1:3]
    padding = (0, 0, 0, -width % window, 0, -height % window)
    return F.pad(x, padding) if any(padding) else x


def to_windows(x: torch.Tensor, window: int) -> torch.Tensor:
    """Cut (N, H, W, C), multiples of ``window`` (also zero), into windows (B, L, C)."""
    n, height, width, channels = x.shape
    rows, columns = height // window, width // window
    x = x.reshape(n, rows, window, columns, window, channels).transpose(2, 3)
    return x.reshape(n * rows * columns, window * window, channels)


def from_windows(windows: torch.Tensor, window: int, shape: torch.Size) -> torch.Tensor:
    """Join windows (B, L, C) to a map of ``shape`` (N, H, W, C): the inverse of `to_windows`."""
    n, height, width, channels = shape
    rows, columns = height // window, width // window
    x = windows.reshape(n, rows, columns, window, window, channels).transpose(2, 3)
    return x.reshape(shape)


def split_borders(x: torch.Tensor, window: int) -> list[torch.Tensor]:
    """Four parts of (N, H, W, C): inner windows, last column, last row, corner.

    All but the corner are empty where the map is one window high or wide.
    """
    height, width = x.shape[1:3]
    return [
        part
        for rows in x.split([height - window, window], dim=1)
        for part in rows.split([width - window, window], dim=2)
    ]


def join_borders(parts: list[torch.Tensor]) -> torch.Tensor:
    """The inverse of `split_borders`."""
    inner, column, row, corner = parts
    return torch.cat([torch.cat([inner, column], dim=2), torch.cat([row, corner], dim=2)], dim=1)


def shift_masks(window: int, shift: int) -> torch.Tensor:
    """What to add to similarities in a shifted map, (4, L, L), in the order of `split_borders`."""
    tokens = torch.arange(window * window)
    moved = window - shift  # tokens from here on come from the opposite border
    below, right = tokens // window >= moved, tokens % window >= moved
    nowhere = torch.zeros_like(below)
    sides = ((nowhere, nowhere), (nowhere, right), (below, nowhere), (below, right))
    regions = torch.stack([2 * row.long() + column.long() for row, column in sides])  # (4, L)
    return MASKED * (regions[:, :, None] != regions[:, None, :]).float()


def relative_position_index(window: int) -> torch.Tensor:
    """Row of the bias table, (2w - 1)² rows, for each query and key of a window: (L, L)."""
    side = torch.arange(window)
    offset = side[:, None] - side + window - 1  # (w, w), of query and key, from 0
    index = offset[:, None, :, None] * (2 * window - 1) + offset[None, :, None, :]
    return index.reshape(window * window, window * window)
