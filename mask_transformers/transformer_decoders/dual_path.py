"""The dual-path transformer (MaX-DeepLab, Wang et al., CVPR 2021, section 3.2).

A path of pixels p, a map that convolutions and axial attention transform as in any CNN, and a path
of memory m, one slot for each mask, exchange what they know after every block. With queries q, keys
k and values v of each, the four kinds of attention are

    pixel to pixel     axial attention, inside the residual block (layers/axial_attention.py)
    memory to pixel  } y^m_b = Σ_n softmax_n(q^m_b · k^pm_n) v^pm_n,   k^pm = [k^p; k^m],
    memory to memory }                                                  v^pm = [v^p; v^m]
    pixel to memory    y^p_a = Σ_b softmax_b(q^p_a · k^m_b) v^m_b

so that one softmax shares a slot's attention between all pixels and all slots, and the feedback of
the memory reaches pixels at any place of the network. Batch norms of the similarities and of the
sums take the place of a scale and of layer norms.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import nn

from ..layers.conv_norm import ConvNorm, LinearNorm
from ..layers.normed_attention import NormedAttention
from ..layers.recomputation import recomputed


class DualPathLayer(nn.Module):
    """All attention of pixels and memory but that between pixels, and the memory's own network."""

    def __init__(
        self,
        pixel_channels: int,
        memory_dim: int,
        *,
        hidden_dim: int,
        heads: int = 8,
        ffn_dim: int = 2048,
        drop_path: float = 0.0,
    ) -> None:
        """``hidden_dim``: width of the values, twice that of the keys."""
        super().__init__()
        self.splits = [hidden_dim // 2, hidden_dim // 2, hidden_dim]
        self.memory_in = LinearNorm(memory_dim, hidden_dim, activation=F.relu)
        self.pixel_in = ConvNorm(pixel_channels, hidden_dim, activation=F.relu)
        self.memory_qkv = LinearNorm(hidden_dim, sum(self.splits))
        self.pixel_qkv = ConvNorm(hidden_dim, sum(self.splits))
        self.memory_attention = NormedAttention(heads, hidden_dim, F.relu)
        self.pixel_attention = NormedAttention(heads, hidden_dim, F.relu)
        self.memory_out = LinearNorm(hidden_dim, memory_dim, scale=0.0)
        self.pixel_out = ConvNorm(hidden_dim, pixel_channels, scale=0.0)
        self.ffn_in = LinearNorm(memory_dim, ffn_dim, activation=F.relu)
        self.ffn_out = LinearNorm(ffn_dim, memory_dim, scale=0.0)
        self.drop_path = DropPath(drop_path)
        for layer in (self.memory_qkv, self.pixel_qkv):
            nn.init.trunc_normal_(layer.conv.weight, std=hidden_dim**-0.5)

    def forward(
        self, pixels: torch.Tensor, memory: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``pixels`` (N, C, h, w), before their activation, and ``memory`` (N, D, Q): the same."""
        pixel_space = self.pixel_in(F.relu(pixels))
        memory_space = self.memory_in(memory)
        pixel = self.pixel_qkv(pixel_space).flatten(2).split(self.splits, dim=1)  # q, k, v
        slot = self.memory_qkv(memory_space).split(self.splits, dim=1)
        # Memory to pixel and memory to memory, under one softmax.
        keys = torch.cat([pixel[1], slot[1]], dim=2)  # (N, C_k, h·w + Q)
        values = torch.cat([pixel[2], slot[2]], dim=2)
        seen = self.memory_out(self.memory_attention(slot[0], keys, values))
        memory = F.relu(memory + self.drop_path(seen))
        memory = F.relu(memory + self.drop_path(self.ffn_out(self.ffn_in(memory))))
        # Pixel to memory.
        feedback = self.pixel_attention(pixel[0], slot[1], slot[2]).view_as(pixel_space)
        return pixels + self.drop_path(self.pixel_out(feedback)), memory


class DualPathStage(nn.Module):
    """Residual blocks of pixels, each followed by a :class:`DualPathLayer` where there are some."""

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        transformers: Sequence[DualPathLayer] = (),
        *,
        activation_checkpointing: bool = False,
    ) -> None:
        """As many ``transformers`` as ``blocks``, or none.

        ``activation_checkpointing``: compute the blocks again in the backward pass.
        """
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.transformers = nn.ModuleList(transformers)
        self.activation_checkpointing = activation_checkpointing

    def forward(
        self, pixels: torch.Tensor, memory: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``pixels`` (N, C, h, w) to (N, C', h', w'), ``memory`` (N, D, Q) to the same shape."""
        for i, block in enumerate(self.blocks):
            recompute = self.activation_checkpointing and self.training
            pixels = recomputed(block, pixels) if recompute else block(pixels)
            if self.transformers:
                pixels, memory = self.transformers[i](pixels, memory)
        return pixels, memory
