"""Axial attention (Axial-DeepLab, Wang et al., ECCV 2020): along the height, then along the width.

A pixel l attends to the pixels m of its own column, or row, by content and by distance (eq. 4):

    y_l = Σ_m softmax_m(q_l·k_m + q_l·r^q_{m-l} + k_m·r^k_{m-l}) (v_m + r^v_{m-l})

Each of the three similarities and of the two sums has a batch norm of its own, which takes the
place of the usual scale. A line below is a column or a row, B of them in a batch.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .conv_norm import SyncNorm

MAX_LENGTH = 255  # positions along an axis that the tables of distances reach


class AxisAttention(nn.Module):
    """Attention along one axis of a map.

    In inference no norm is computed on a map: there it is y·s + b for constants s and b, which go
    into the projection, into a factor of a product, or, as weights add up to one, into the values.
    """

    def __init__(
        self, in_channels: int, key_depth: int, value_depth: int, heads: int = 8, *, axis: int
    ) -> None:
        """Depths are those of all heads together; ``axis`` is 2 (height) or 3 (width).

        ValueError if a depth is no multiple of ``heads``.
        """
        super().__init__()
        if key_depth % heads or value_depth % heads:
            raise ValueError(
                f"depths {key_depth} (key) and {value_depth} (value) must be multiples of the "
                f"{heads} heads of axial attention"
            )
        self.heads, self.axis = heads, axis
        self.depths = [key_depth, key_depth, value_depth]
        self.qkv = nn.Conv1d(in_channels, sum(self.depths), 1, bias=False)
        self.qkv_norm = SyncNorm(sum(self.depths))
        self.similarity_norm = SyncNorm(3 * heads)
        self.output_norm = SyncNorm(2 * value_depth)
        self.query_position = _table(key_depth // heads)
        self.key_position = _table(key_depth // heads)
        self.value_position = _table(value_depth // heads)
        nn.init.trunc_normal_(self.qkv.weight, std=in_channels**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, value depth, H, W); ValueError if the axis is too long."""
        length = x.shape[self.axis]
        if length > MAX_LENGTH:
            raise ValueError(
                f"axial attention reaches {MAX_LENGTH} positions along an axis; dimension "
                f"{self.axis} of the map {tuple(x.shape)} has {length}"
            )
        query, key, value = map(self._lines, self._project(x).split(self.depths, 1))
        weights = self._logits(query, key).softmax(-1)  # (B, heads, L, L)
        content = torch.einsum("bhlm,bhmd->bhld", weights, value)
        distances = by_distance(self.value_position.weight, length)
        position = torch.einsum("bhlm,lmd->bhld", weights, distances)
        return self._sum(content, position, len(x))

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values of all pixels, (N, sum of depths, H, W)."""
        weight = self.qkv.weight.unsqueeze(-1)
        if self.training:
            return self.qkv_norm(F.conv2d(x, weight))
        scale, shift = _scale_and_shift(self.qkv_norm)
        output_scale, output_shift = _scale_and_shift(self.output_norm)
        before = (sum(self.depths[:2]), 0)  # queries and keys, which come first, stay
        factor = F.pad(output_scale.chunk(2)[0], before, value=1.0)
        offset = F.pad(output_shift.view(2, -1).sum(0), before)
        folded = weight * (scale * factor)[:, None, None, None]
        return F.conv2d(x, folded, shift * factor + offset)

    def _logits(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Sum of the normed similarities of ``query`` and ``key`` (B, heads, L, d)."""
        length = query.shape[2]
        query_distances = by_distance(self.query_position.weight, length)
        key_distances = by_distance(self.key_position.weight, length)
        by_query = torch.einsum("bhld,lmd->bhlm", query, query_distances)
        by_key = torch.einsum("bhmd,lmd->bhlm", key, key_distances)
        if self.training:
            content = torch.einsum("bhld,bhmd->bhlm", query, key)
            terms = self.similarity_norm(torch.cat([content, by_query, by_key], 1))
            return terms.unflatten(1, (3, self.heads)).sum(1)
        # No shift: it is the same for all m, and the softmax does not see it.
        scales = _scale_and_shift(self.similarity_norm)[0].view(3, self.heads, 1, 1)
        logits = torch.einsum("bhld,bhmd->bhlm", query * scales[0], key)
        return logits.addcmul_(by_query, scales[1]).addcmul_(by_key, scales[2])

    def _sum(self, content: torch.Tensor, position: torch.Tensor, images: int) -> torch.Tensor:
        """Normed ``content`` (B, heads, L, d) plus normed ``position``, as a map."""
        if self.training:
            both = self._map(torch.cat([content, position], 1), images)  # (N, 2·D, H, W)
            return self.output_norm(both).unflatten(1, (2, -1)).sum(1)
        scale = _scale_and_shift(self.output_norm)[0].chunk(2)[1]
        return self._map(content.addcmul_(position, scale.view(self.heads, 1, -1)), images)

    def _lines(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, heads·d, H, W) to (B, heads, L, d)."""
        x = x if self.axis == 3 else x.transpose(2, 3)
        x = x.unflatten(1, (self.heads, -1)).permute(0, 3, 1, 4, 2)  # (N, other axis, heads, L, d)
        return x.flatten(0, 1).contiguous()

    def _map(self, x: torch.Tensor, images: int) -> torch.Tensor:
        """(B, heads, L, d) of some ``images`` to (N, heads·d, H, W)."""
        x = x.unflatten(0, (images, -1)).permute(0, 2, 4, 1, 3)  # (N, heads, d, other axis, L)
        return (x if self.axis == 3 else x.transpose(3, 4)).flatten(1, 2)


class AxialAttention(nn.Module):
    """Attention along the height, then along the width of what that gives."""

    def __init__(self, in_channels: int, key_depth: int, value_depth: int, heads: int = 8) -> None:
        """See :class:`AxisAttention`; both axes have the same depths."""
        super().__init__()
        self.height = AxisAttention(in_channels, key_depth, value_depth, heads, axis=2)
        self.width = AxisAttention(value_depth, key_depth, value_depth, heads, axis=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, value depth, H, W)."""
        return self.width(self.height(x))


def by_distance(table: torch.Tensor, length: int) -> torch.Tensor:
    """Rows of ``table`` (509, d) for all pairs of positions, (L, L, d).

    Entry (l, m) is the row of the distance m - l, whose middle, 0, is row 254.
    """
    window = table[MAX_LENGTH - length : MAX_LENGTH + length - 1]  # distances 1-L to L-1
    return window.unfold(0, length, 1).flip(0).transpose(1, 2)


def _table(depth: int) -> nn.Embedding:
    table = nn.Embedding(2 * MAX_LENGTH - 1, depth)
    nn.init.trunc_normal_(table.weight)
    return table


def _scale_and_shift(norm: SyncNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """What the norm multiplies and adds in inference, (C,) each."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale
