"""Multi-head attention, batch first, on PyTorch's fused kernel."""

import torch
import torch.nn.functional as F
from torch import nn


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with one packed projection of query, key and value.

    The parameters have the names and the layout of ``nn.MultiheadAttention``, so that published
    weights need no conversion. A boolean mask is shared by all heads and is never repeated.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        """``dropout`` is that of the attention weights, in training."""
        super().__init__()
        if dim % heads:
            raise ValueError(f"attention width {dim} is not a multiple of {heads} heads")
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attend: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend from ``query`` (N, Q, C) to ``key`` and ``value`` (N, L, C).

        ``attend`` (N, Q or 1, L) is True where a query may look. Returns (N, Q, C).
        """
        weights = self.in_proj_weight.chunk(3)
        biases = self.in_proj_bias.chunk(3)
        q, k, v = (
            self._split_heads(F.linear(x, w, b))  # (N, heads, L, C / heads)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        mask = None if attend is None else attend[:, None]  # (N, 1, Q or 1, L)
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def weights(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """How much ``query`` (N, Q, C) attends to ``key`` (N, L, C): the mean of the heads.

        Returns (N, Q, L), which sum to 1 over L. For pictures: ``forward`` never has them.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k = (
            self._split_heads(F.linear(x, w, b))
            for x, w, b in zip((query, key), weights, biases, strict=False)
        )
        return (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1).mean(1)

    def _split_heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
