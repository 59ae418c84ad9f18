"""Attention with batch norms in place of a scale and an output projection (MaX-DeepLab, 3.1)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from .conv_norm import SyncNorm


class NormedAttention(nn.Module):
    """Multi-head attention of given queries, keys and values, (N, C, L) each."""

    def __init__(
        self,
        heads: int,
        value_dim: int,
        activation: Callable[[torch.Tensor], torch.Tensor] = F.gelu,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.heads = heads
        self.similarity_norm = SyncNorm(heads)
        self.output_norm = SyncNorm(value_dim)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """``query`` (N, C, Q), ``key`` (N, C, L), ``value`` (N, D, L) to (N, D, Q)."""
        q, k, v = (x.unflatten(1, (self.heads, -1)) for x in (query, key, value))
        similarity = torch.einsum("nhcq,nhcl->nhql", q, k)
        logits = self.similarity_norm(similarity)
        wide = torch.promote_types(logits.dtype, torch.float32)  # half precision is too coarse
        weights = logits.softmax(-1, dtype=wide).to(v.dtype)
        seen = torch.einsum("nhql,nhdl->nhdq", weights, v).flatten(1, 2)
        return self.activation(self.output_norm(seen))
