"""Multi-scale deformable attention (Deformable DETR, section 4.1, eq. 3)."""

import math

import torch
from torch import nn

from .deformable_sampling import sample_levels

Sizes = tuple[tuple[int, int], ...]


class DeformableAttention(nn.Module):
    """Each token gathers a few samples, at learned offsets, from every level and head."""

    def __init__(self, dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"attention width {dim} is not a multiple of {heads} heads")
        self.heads, self.levels, self.points = heads, levels, points
        samples = heads * levels * points
        self.sampling_offsets = nn.Linear(dim, samples * 2)
        self.attention_weights = nn.Linear(dim, samples)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Head h looks in direction 2πh/heads, its points at distances 1, 2, ... pixels."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().max(-1, keepdim=True).values
        distance = torch.arange(1, self.points + 1, dtype=torch.float32)
        offset = direction[:, None, None] * distance[:, None]  # (heads, 1, points, 2)
        with torch.no_grad():
            bias = self.sampling_offsets.bias.view(self.heads, self.levels, self.points, 2)
            bias.copy_(offset.expand_as(bias))
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, query: torch.Tensor, tokens: torch.Tensor, centres: torch.Tensor, sizes: Sizes
    ) -> torch.Tensor:
        """``query`` and ``tokens`` (N, L, C), levels one after the other; returns (N, L, C).

        ``centres`` (L, levels, 2) is the place of each query as (x, y) in pixels of each level,
        where a whole number is the centre of a pixel. ``sizes`` gives (h, w) of the levels.
        """
        shape = (self.heads, self.levels, self.points)
        value = self.value_proj(tokens).unflatten(-1, (self.heads, -1))  # (N, L, heads, D)
        offset = self.sampling_offsets(query).unflatten(-1, (*shape, 2))
        weight = self.attention_weights(query).unflatten(-1, (self.heads, -1))
        weight = _softmax_of_few(weight).unflatten(-1, shape[1:])  # (N, L, heads, levels, points)
        centres = centres[:, None, :, None].expand(-1, -1, -1, self.points, -1).contiguous()
        place = (offset.flatten(3) + centres.flatten(2)).view_as(offset)
        return self.output_proj(sample_levels(value, sizes, place, weight).flatten(2))


def _softmax_of_few(x: torch.Tensor) -> torch.Tensor:
    """Softmax over a short last dimension, where PyTorch's kernel does not vectorise."""
    exponential = (x - x.detach().amax(-1, keepdim=True)).exp()
    return exponential / exponential.sum(-1, keepdim=True)


def grid_centres(sizes: Sizes, device: torch.device | str) -> torch.Tensor:
    """Centre of every pixel of every level, in pixels of each level: (L, levels, 2) as (x, y)."""
    relative = []
    for h, w in sizes:
        y = (torch.arange(h, device=device) + 0.5) / h
        x = (torch.arange(w, device=device) + 0.5) / w
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        relative.append(torch.stack([grid_x, grid_y], -1).flatten(0, 1))
    scale = torch.tensor([(w, h) for h, w in sizes], dtype=torch.float32, device=device)
    return torch.cat(relative)[:, None] * scale - 0.5
