"""Convolution and synchronised batch norm, as in MaX-DeepLab and kMaX-DeepLab."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.utils import comm
from torch import nn

EPSILON, MOMENTUM = 1e-3, 0.01


class SyncNorm(NaiveSyncBatchNorm):
    """Batch norm over all processes and all but the second dimension, with the authors' constants.

    On one process it is plain batch norm; on several it needs no GPU, and processes weigh the same
    however large their images are.
    """

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        """``scale``: what the weight starts from."""
        super().__init__(channels, eps=EPSILON, momentum=MOMENTUM)
        nn.init.constant_(self.weight, scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, L) or (N, C, H, W) to the same shape.

        ValueError for other shapes, and in training for one value a channel, such as the mean of a
        single image.
        """
        if x.dim() not in (3, 4):
            raise ValueError(f"SyncNorm takes lines or maps, not a tensor of {tuple(x.shape)}")
        if not self.training:
            return super().forward(x)
        if not _several():
            # As lines: on a CPU PyTorch 2.14 computes wrong gradients for a map that is one line,
            # where its input and its gradient do not both have the channels last in memory.
            return super().forward(x.flatten(2)).view(x.shape)
        # The base class squares means; processes exchange them in the precision of x.
        maps = (x if x.dim() == 4 else x.unsqueeze(-1)).to(_wide(x.dtype))
        return super().forward(maps).to(x.dtype).view_as(x)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """ValueError for what cannot be normed."""
        if self.training and input.shape[1] == input.numel():
            raise ValueError(
                "batch norms cannot learn from a single value: train on two or more images at "
                "once (SOLVER.IMS_PER_BATCH), in one process or several"
            )


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _several() -> bool:
    return comm.get_world_size() > 1


class ConvNorm(nn.Module):
    """Convolution with padding, norm, and an activation if there is one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        scale: float = 1.0,
    ) -> None:
        """``scale``: what the weight of the norm starts from, 0 at the end of a residual branch."""
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=kernel // 2 * dilation,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self.norm = SyncNorm(out_channels, scale)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', H, W), with a stride s to (N, C', ⌈H/s⌉, ⌈W/s⌉)."""
        x = self.norm(self.conv(x))
        return x if self.activation is None else self.activation(x)


class LinearNorm(nn.Module):
    """The same for queries (N, C, Q): a convolution of width 1 along them."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        scale: float = 1.0,
    ) -> None:
        """See :class:`ConvNorm`."""
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, 1, bias=False)
        self.norm = SyncNorm(out_channels, scale)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, Q) to (N, C', Q)."""
        x = self.norm(self.conv(x))
        return x if self.activation is None else self.activation(x)


def resize_corners(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear resizing of (N, C, h, w) whose corner pixels lie on each other (MaX-DeepLab)."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def resize_aligned(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear resizing of (N, C, h, w) that aligns corners exactly where the width is odd.

    As kMaX-DeepLab does: in images of 32k + 1 pixels corners of all strides lie on each other.
    """
    return F.interpolate(x, size=size, mode="bilinear", align_corners=corners_align(x))


def corners_align(maps: torch.Tensor) -> bool:
    """Whether corner pixels of ``maps`` (..., h, w) lie on those of other strides; else borders."""
    return bool(maps.shape[-1] % 2 == 1)  # in a trace a size is a tensor
