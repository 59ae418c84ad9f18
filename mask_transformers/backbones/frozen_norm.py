"""Frozen batch norms folded into their convolutions, also while training.

A frozen norm is y·s + b with constants s and b, and a convolution is linear in its weight, so
conv(x, w)·s + b = conv(x, w·s) + b: two passes over every feature map become one over the weight.
"""

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn


class FoldedConv2d(Conv2d):
    """A Detectron2 convolution whose frozen norm scales the weight in place of the output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the output of convolution, norm and activation."""
        norm = self.norm
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        bias = norm.bias - norm.running_mean * scale
        weight = self.weight * scale.to(self.weight.dtype)[:, None, None, None]
        x = self._conv_forward(x, weight, bias.to(weight.dtype))
        return x if self.activation is None else self.activation(x)


def fold_frozen_norms(backbone: nn.Module) -> None:
    """Let every convolution without bias that a frozen norm follows compute both as one.

    Names and values of parameters and buffers stay as they are.
    """
    for module in backbone.modules():
        frozen = isinstance(getattr(module, "norm", None), FrozenBatchNorm2d)
        if type(module) is Conv2d and frozen and module.bias is None:
            module.__class__ = FoldedConv2d
