"""The stacked decoder (MaX-DeepLab, section 3.2): hourglasses over the strides 4, 8 and 16.

At every step the map is resized to the next stride, added to the backbone's feature there, and goes
through a stage, with the memory where the stage has transformers. MaX-DeepLab-S descends once, to
stride 4; L does so twice before.

Features of earlier steps are not added: names and shapes of the checkpoint of L would allow that,
but sums of sums grow so fast that float32 no longer gives reproducible masks.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ..layers.conv_norm import ConvNorm, resize_corners
from .dual_path import DualPathStage

Features = dict[int, torch.Tensor]  # stride → map (N, C, h, w), before its activation


class ResizedFuse(nn.Module):
    """Sum of a map, projected and resized, and of one that has the size it needs."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        """``stride`` 2 if the map is twice as fine, 1 if it is coarser."""
        super().__init__()
        self.project = ConvNorm(in_channels, out_channels, stride=stride)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """``x`` (N, C, h, w) and ``skip`` (N, C', h', w') to (N, C', h', w')."""
        size = (skip.shape[2], skip.shape[3])
        return resize_corners(self.project(F.relu(x)), size) + skip


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
        """The map of the last step to that of this one; ``features`` of the backbone's stages."""
        return self.stage(self.fuse(pixels, features[self.stride]), memory)


class StackedDecoder(nn.Module):
    """A stage at the coarsest stride, then steps, the last one to the finest stride."""

    def __init__(self, first: DualPathStage, steps: nn.ModuleList) -> None:
        super().__init__()
        self.first = first
        self.steps = steps

    def forward(
        self, pixels: torch.Tensor, memory: torch.Tensor, features: Features
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """What a backbone returns to maps with the finest stride, the last one last, and memory."""
        pixels, memory = self.first(pixels, memory)
        finest = self.steps[-1].stride
        decoded = []
        for step in self.steps:
            pixels, memory = step(pixels, memory, features)
            if step.stride == finest:
                decoded.append(pixels)
        return decoded, memory
