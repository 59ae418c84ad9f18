"""DETR's mask head (section 4.4 and supplement, A.5): where each query looks, made sharp.

A query attends to the pixels of the encoder, with several heads; a small pyramid of convolutions
turns its attention maps and the backbone's features into a mask.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..layers.convolution import biased_conv

GROUPS = 8  # of the group norms


class AttentionMaps(nn.Module):
    """Attention of queries over pixels, without values: one map for each head."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = nn.Linear(dim, dim)
        self.k_linear = nn.Linear(dim, dim)
        for linear in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, queries: torch.Tensor, memory: torch.Tensor, inside: torch.Tensor | None
    ) -> torch.Tensor:
        """``queries`` (n, C), ``memory`` (C, h, w), ``inside`` (h·w,) to maps (n, heads, h, w).

        As published, one softmax runs over the pixels of all heads together.
        """
        q = self.q_linear(queries).unflatten(1, (self.heads, -1))  # (n, heads, c)
        k = self.k_linear(memory.flatten(1).T).unflatten(1, (self.heads, -1))  # (L, heads, c)
        weights = torch.einsum("nhc,lhc->nhl", q * q.shape[-1] ** -0.5, k)
        if inside is not None:
            weights = weights.masked_fill(~inside, -torch.inf)
        return weights.flatten(1).softmax(1).view(*weights.shape[:2], *memory.shape[1:])


class DETRMaskHead(nn.Module):
    """Masks of the queries one asks for, and of no others."""

    def __init__(self, dim: int, heads: int, fine_channels: Sequence[int]) -> None:
        """``fine_channels`` of the backbone features that join, coarse to fine; three in the paper.

        Every one of them halves the width. ValueError where the widths do not divide into the
        groups of the norms.
        """
        super().__init__()
        widths = [dim + heads, *(dim // 2**i for i in range(1, len(fine_channels) + 2))]
        if any(width % GROUPS for width in widths):
            raise ValueError(
                f"HIDDEN_DIM {dim}, {heads} heads and {len(fine_channels)} finer features give the "
                f"mask head layers of {widths} channels; group norm needs multiples of {GROUPS}"
            )
        self.attention = AttentionMaps(dim, heads)
        inputs = [dim + heads, *widths[:-1]]
        self.convs = nn.ModuleList(
            biased_conv(a, b, 3) for a, b in zip(inputs, widths, strict=True)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, width) for width in widths)
        self.adapters = nn.ModuleList(
            biased_conv(a, b, 1) for a, b in zip(fine_channels, widths[1:-1], strict=True)
        )
        self.out = biased_conv(widths[-1], 1, 3)

    def forward(
        self,
        queries: torch.Tensor,
        projected: torch.Tensor,
        memory: torch.Tensor,
        fine: Sequence[torch.Tensor],
        inside: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mask logits (n, h', w') of n queries of one image, at the size of the finest feature.

        ``queries`` (n, C) of the decoder; ``projected`` and ``memory`` (C, h, w), the input and the
        output of the encoder; ``fine`` features (C_l, h_l, w_l), coarse to fine; ``inside`` (h·w,)
        is False in padding.
        """
        first, channels = self.convs[0], len(projected)
        assert isinstance(first, nn.Conv2d)
        # A convolution of concatenated maps is the sum of the convolutions of each: the projected
        # pixels, most of the channels, are the same for all queries.
        shared = F.conv2d(projected[None], first.weight[:, :channels], first.bias, padding=1)
        maps = self.attention(queries, memory, inside)
        x = shared + F.conv2d(maps, first.weight[:, channels:], padding=1)
        lateral = [adapter(level[None]) for adapter, level in zip(self.adapters, fine, strict=True)]
        return self._pyramid(x, lateral)

    def _pyramid(self, x: torch.Tensor, lateral: Sequence[torch.Tensor]) -> torch.Tensor:
        """From the first convolution (n, C + heads, h, w) to mask logits (n, h', w')."""
        x = self.norms[0](x).relu_()
        x = self.norms[1](self.convs[1](x)).relu_()
        for conv, norm, level in zip(self.convs[2:], self.norms[2:], lateral, strict=True):
            x = level + F.interpolate(x, size=level.shape[-2:], mode="nearest")
            x = norm(conv(x)).relu_()
        return self.out(x).squeeze(1)
