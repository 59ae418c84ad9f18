"""The Swin Transformer block (Liu et al., ICCV 2021, Section 3.2) for maps of any size.

The libraries have blocks of the same tensors but not of the same results: timm shifts a map before
it pads it, and both timm and torchvision leave out the shift where a map has one window only.
Published segmentation models pad first and shift always.
"""

from collections.abc import Sequence

import torch
from timm.layers import DropPath, Mlp
from torch import nn
from torch.nn import functional as F

from .swin_windows import (
    from_windows,
    join_borders,
    pad_to_windows,
    relative_position_index,
    shift_masks,
    split_borders,
    to_windows,
)


class WindowAttention(nn.Module):
    """Self-attention inside windows, with a learned bias for each relative position and head."""

    relative_position_index: torch.Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        index = relative_position_index(window)
        self.register_buffer("relative_position_index", index, persistent=False)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(
        self, groups: Sequence[torch.Tensor], masks: torch.Tensor | None = None
    ) -> Sequence[torch.Tensor]:
        """Attend inside every window of ``groups``, each (B, L, C) or empty.

        ``masks`` (G, L, L) holds what to add to the similarities, one matrix for all windows of a
        group: no mask as large as the map is ever made.
        """
        sizes = [len(group) for group in groups]
        qkv = self.qkv(torch.cat(tuple(groups)))  # (B, L, 3C)
        queries, keys, values = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        biases = self._biases(masks).to(queries.dtype)
        parts = zip(
            queries.split(sizes), keys.split(sizes), values.split(sizes), biases, strict=True
        )
        heads = torch.cat(
            [
                F.scaled_dot_product_attention(q, k, v, attn_mask=bias) if len(q) else q
                for q, k, v, bias in parts
            ]
        )  # (B, heads, L, C / heads)
        return self.proj(heads.transpose(1, 2).flatten(2)).split(sizes)

    def _biases(self, masks: torch.Tensor | None) -> torch.Tensor:
        """(G, 1, heads, L, L), of position and mask."""
        bias = F.embedding(self.relative_position_index, self.relative_position_bias_table)
        bias = bias.permute(2, 0, 1).contiguous()  # (heads, L, L)
        return bias[None, None] if masks is None else bias + masks[:, None, None]


class SwinBlock(nn.Module):
    """Attention in windows, cut after a cyclic shift by half a window if ``shifted``, and MLP."""

    shift_masks: torch.Tensor | None

    def __init__(
        self, dim: int, heads: int, window: int, *, shifted: bool = False, drop_path: float = 0.0
    ) -> None:
        """``drop_path``: probability of leaving out a branch in training (stochastic depth)."""
        super().__init__()
        self.window = window
        self.shift = window // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        masks = shift_masks(window, self.shift) if self.shift else None
        self.register_buffer("shift_masks", masks, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, H, W, C) to the same shape."""
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[1:3]
        x = pad_to_windows(x, self.window)
        x = self._attend_shifted(x) if self.shift else self._attend_plain(x)
        return x[:, :height, :width]

    def _attend_plain(self, x: torch.Tensor) -> torch.Tensor:
        [windows] = self.attn([to_windows(x, self.window)])
        return from_windows(windows, self.window, x.shape)

    def _attend_shifted(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.roll(x, (-self.shift, -self.shift), dims=(1, 2))
        parts = split_borders(x, self.window)
        groups = self.attn([to_windows(part, self.window) for part in parts], self.shift_masks)
        joined = [
            from_windows(group, self.window, part.shape)
            for group, part in zip(groups, parts, strict=True)
        ]
        return torch.roll(join_borders(joined), (self.shift, self.shift), dims=(1, 2))
