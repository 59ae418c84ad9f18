"""The stacked decoder (MaX-DeepLab, section 3.2): hourglasses over the strides 4, 8 and 16.

At every step the map is resized to the next stride, added to what is known there, and goes through
a stage, with the memory where the stage has transformers. MaX-DeepLab-S descends once, to stride 4;
L does so twice before.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..layers.conv_norm import ConvNorm, resize_aligned
from .dual_path import DualPathStage

SKIPS = 2  # features of a stride that a step adds: one of a way down, one of a way up

Features = dict[int, list[torch.Tensor]]  # stride → maps (N, C, h, w), before their activation


class ResizedFuse(nn.Module):
    """Sum of a map, projected and resized, and of maps that have the size it needs."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        """``stride`` 2 if the map is twice as fine, 1 if it is coarser."""
        super().__init__()
        self.project = ConvNorm(in_channels, out_channels, stride=stride)

    def forward(self, x: torch.Tensor, others: Sequence[torch.Tensor]) -> torch.Tensor:
        """``x`` (N, C, h, w) and ``others`` (N, C', h', w') to (N, C', h', w')."""
        size = (others[0].shape[2], others[0].shape[3])
        x = resize_aligned(self.project(F.relu(x)), size)
        return x + sum(others)


class DecoderStep(nn.Module):
    """Go on to another stride."""

    def __init__(self, stride: int, fuse: ResizedFuse, stage: DualPathStage) -> None:
        super().__init__()
        self.stride = stride
        self.fuse = fuse
        self.stage = stage

    def forward(
        self, pixels: torch.Tensor, memory: torch.Tensor, features: Features
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The map of the last step to that of this one, which joins ``features``."""
        fused = self.fuse(pixels, features[self.stride][-SKIPS:])
        pixels, memory = self.stage(fused, memory)
        features[self.stride].append(pixels)
        return pixels, memory


class StackedDecoder(nn.Module):
    """A stage at the coarsest stride, then steps, the last one to the finest stride."""

    def __init__(self, first: DualPathStage, steps: nn.ModuleList) -> None:
        super().__init__()
        self.first = first
        self.steps = steps

    def forward(
        self, pixels: torch.Tensor, memory: torch.Tensor, features: Features
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """What a backbone returns to maps with the finest stride, the last one last, and memory.

        ``features`` are changed: the first stage replaces the last feature of its stride.
        """
        pixels, memory = self.first(pixels, memory)
        coarsest, finest = max(features), self.steps[-1].stride
        features[coarsest][-1] = pixels
        decoded = []
        for step in self.steps:
            pixels, memory = step(pixels, memory, features)
            if step.stride == finest:
                decoded.append(pixels)
        return decoded, memory
