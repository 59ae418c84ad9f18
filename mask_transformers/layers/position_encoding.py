"""Sine position encoding of a pixel grid."""

import functools
import math

import torch


def sine_position_encoding(
    height: int, width: int, channels: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Normalised sine encoding over 2π with temperature 10,000, as in DETR (supplement, A.4).

    Returns ``(1, channels, height, width)``: the first half of the channels encodes y, the
    second half x; sine and cosine alternate. ``channels`` must be a multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"a position encoding needs a multiple of 4 channels, not {channels}")
    per_axis = channels // 2
    y = _encode_axis(height, per_axis, device)  # (C/2, H)
    x = _encode_axis(width, per_axis, device)  # (C/2, W)
    y = y[:, :, None].expand(-1, -1, width)
    x = x[:, None, :].expand(-1, height, -1)
    return torch.cat([y, x]).unsqueeze(0)


@functools.lru_cache(maxsize=16)
def token_positions(
    height: int, width: int, channels: int, device: torch.device | str
) -> torch.Tensor:
    """:func:`sine_position_encoding` of the tokens of a map, row by row: (1, L, channels)."""
    encoding = sine_position_encoding(height, width, channels, device)
    return encoding.flatten(2).transpose(1, 2)


def _encode_axis(length: int, channels: int, device: torch.device | str) -> torch.Tensor:
    position = torch.arange(1, length + 1, dtype=torch.float32, device=device)
    position = position / (length + 1e-6) * 2 * math.pi
    index = torch.arange(channels, device=device)
    frequency = 10000 ** (2 * torch.div(index, 2, rounding_mode="floor") / channels)
    angle = position / frequency[:, None]  # (C, length)
    even = (index % 2 == 0)[:, None]
    return torch.where(even, angle.sin(), angle.cos())
