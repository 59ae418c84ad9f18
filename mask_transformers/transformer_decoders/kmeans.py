"""k-means cross-attention (kMaX-DeepLab, Yu et al., ECCV 2022).

Queries are cluster centres C (Q, D) of the pixels with keys K and values V (L, D). Cross-attention
updates them by a softmax over the pixels (section 3.2),

    C ← C + softmax_pixels(C·Kᵀ) V,

and k-means assigns every pixel to the one centre that it is most similar to, and then moves the
centres to their pixels,

    A = argmax_queries(C·Kᵀ),  C ← A V,

where A (Q, L) is one in the row that the argmax of its column names, and zero elsewhere.

Both are one step with another normalisation. So take the argmax over the queries in place of the
softmax over the pixels (section 3.3):

    C ← C + A V.

The similarities are the mask logits of the layer: clusters are masks, and are supervised as such.
The assignment has no gradient.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import nn

from ..layers.conv_norm import ConvNorm, LinearNorm, SyncNorm
from ..layers.normed_attention import NormedAttention
from ..structures import DensePrediction
from .mask_predictor import MaskPredictor


def kmeans_update(similarity: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Sum of the ``values`` (N, D, h, w) of each query's pixels, (N, D, Q).

    ``similarity`` (N, Q, h, w): each pixel goes to the query where it is largest, the first of
    equal ones. A sum over segments, in time and memory of the values alone, however many queries
    there are; in full precision, as half of it does not reach the sum of thousands of pixels.
    """
    images, queries = similarity.shape[:2]
    assignment = similarity.detach().argmax(1).flatten(1)  # (N, L)
    first = torch.arange(images, device=assignment.device)[:, None] * queries
    rows = values.flatten(2).transpose(1, 2).flatten(0, 1)  # (N·L, D)
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    sums = rows.new_zeros(images * queries, rows.shape[1])
    sums = sums.index_add(0, (assignment + first).flatten(), rows)
    return sums.unflatten(0, (images, queries)).transpose(1, 2)


def softmax_update(similarity: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Mean of all values by a softmax over the pixels: cross-attention, the ablation."""
    weights = similarity.flatten(2).softmax(-1)
    return torch.einsum("nql,ndl->ndq", weights, values.flatten(2))


CrossAttention = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
CROSS_ATTENTION: dict[str, CrossAttention] = {"kmeans": kmeans_update, "softmax": softmax_update}


class KMeansLayer(nn.Module):
    """Predict, update the centres by the prediction, let them look at each other, transform."""

    def __init__(
        self,
        pixel_channels: int,
        dim: int,
        predictor: MaskPredictor,
        *,
        heads: int,
        ffn_dim: int,
        drop_path: float = 0.0,
        cross_attention: CrossAttention = kmeans_update,
    ) -> None:
        """Centres and what ``predictor`` reads have the width ``dim``, keys of them half of it."""
        super().__init__()
        self.cross_attention = cross_attention
        self.splits = [dim // 2, dim // 2, dim]
        self.pixel_in = ConvNorm(pixel_channels, dim, activation=F.gelu)
        self.query_in = LinearNorm(dim, dim, activation=F.gelu)
        self.predictor = predictor
        self.pixel_value = ConvNorm(dim, dim)
        self.kmeans_norm = SyncNorm(dim)
        self.kmeans_out = LinearNorm(dim, dim, scale=0.0)
        self.query_qkv = LinearNorm(dim, sum(self.splits))
        self.self_attention = NormedAttention(heads, dim)
        self.query_out = LinearNorm(dim, dim, scale=0.0)
        self.ffn_in = LinearNorm(dim, ffn_dim, activation=F.gelu)
        self.ffn_out = LinearNorm(ffn_dim, dim, scale=0.0)
        self.drop_path = DropPath(drop_path)
        nn.init.trunc_normal_(self.query_qkv.conv.weight, std=dim**-0.5)
        nn.init.trunc_normal_(self.pixel_value.conv.weight, std=dim**-0.5)

    def forward(
        self, centers: torch.Tensor, pixels: torch.Tensor
    ) -> tuple[torch.Tensor, DensePrediction]:
        """Updated ``centers`` (N, D, Q), and what they predicted in ``pixels`` (N, C, h, w)."""
        space = self.pixel_in(F.gelu(pixels))
        query = self.query_in(centers)
        prediction = self.predictor(query, query, space)
        update = self.cross_attention(prediction.mask_logits, self.pixel_value(space))
        centers = centers + self.drop_path(self.kmeans_out(self.kmeans_norm(update)))
        # Of the centres before the update, as published.
        q, k, v = self.query_qkv(query).split(self.splits, dim=1)
        seen = self.query_out(self.self_attention(q, k, v))
        centers = F.gelu(centers + self.drop_path(seen))
        hidden = self.ffn_out(self.ffn_in(centers))
        return F.gelu(centers + self.drop_path(hidden)), prediction
