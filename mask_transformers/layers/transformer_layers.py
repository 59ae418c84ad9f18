"""The encoder and decoder layer of DETR (section 3.2 and supplement, A.3), post-norm.

Positions are added to queries and keys only, at every attention, which does not see padding.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .attention import MultiHeadAttention
from .feed_forward import feed_forward
from .pixel_grid import PixelGrid


class EncoderLayer(nn.Module):
    """Self-attention over the pixels of a map, then a feed-forward network."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = dropout
        self.self_attn = MultiHeadAttention(dim, heads, dropout)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        _initialise(self.linear1, self.linear2)

    def forward(self, tokens: torch.Tensor, grid: PixelGrid) -> torch.Tensor:
        """``tokens`` (N, L, C) to the same shape."""
        p = self.dropout if self.training else 0.0
        positioned = tokens + grid.position
        seen = self.self_attn(positioned, positioned, tokens, grid.inside)
        tokens = self.norm1(tokens + F.dropout(seen, p))
        hidden = feed_forward(tokens, self.linear1, self.linear2, p)
        return self.norm2(tokens + F.dropout(hidden, p))


class TransformerEncoder(nn.ModuleList):
    """Encoder layers over a feature map."""

    def __init__(
        self, dim: int, layers: int, heads: int, ffn_dim: int, dropout: float = 0.1
    ) -> None:
        super().__init__(EncoderLayer(dim, heads, ffn_dim, dropout) for _ in range(layers))

    def forward(self, level: torch.Tensor, grid: PixelGrid) -> torch.Tensor:
        """``level`` (N, C, h, w) to the same shape."""
        tokens = level.flatten(2).transpose(1, 2)  # (N, L, C)
        for layer in self:
            tokens = layer(tokens, grid)
        return tokens.transpose(1, 2).unflatten(2, level.shape[-2:])


class DecoderLayer(nn.Module):
    """Self-attention between queries, cross-attention to the pixels, a feed-forward network."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = dropout
        self.self_attn = MultiHeadAttention(dim, heads, dropout)
        self.cross_attn = MultiHeadAttention(dim, heads, dropout)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        _initialise(self.linear1, self.linear2)

    def forward(
        self,
        query: torch.Tensor,
        query_position: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attend: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``query`` (N, Q, C) with its ``query_position`` looks at ``key``, ``value`` (N, L, C).

        ``attend`` (N, 1, L) is True where it may.
        """
        p = self.dropout if self.training else 0.0
        positioned = query + query_position
        seen = self.self_attn(positioned, positioned, query)
        query = self.norm1(query + F.dropout(seen, p))
        seen = self.cross_attn(query + query_position, key, value, attend)
        query = self.norm2(query + F.dropout(seen, p))
        hidden = feed_forward(query, self.linear1, self.linear2, p)
        return self.norm3(query + F.dropout(hidden, p))


def _initialise(*linears: nn.Linear) -> None:
    for linear in linears:
        nn.init.xavier_uniform_(linear.weight)
