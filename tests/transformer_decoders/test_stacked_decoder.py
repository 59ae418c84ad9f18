import pytest
import torch
from torch import nn

from mask_transformers.layers.conv_norm import SyncNorm
from mask_transformers.transformer_decoders.dual_path import DualPathStage
from mask_transformers.transformer_decoders.stacked_decoder import (
    DecoderStep,
    ResizedFuse,
    StackedDecoder,
)


def _randomise(module):
    for part in module.modules():
        if isinstance(part, SyncNorm):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module.double().eval()


def _project(layer, x):
    norm = layer.norm
    y = torch.einsum("oc,nchw->nohw", layer.conv.weight[..., 0, 0], x.clamp(min=0))
    scale = norm.weight / (norm.running_var + 1e-3).sqrt()
    shift = norm.bias - norm.running_mean * scale
    return y * scale[:, None, None] + shift[:, None, None]


def _weights(small, large):
    """Bilinear weights (large, small) where first and last positions lie on each other."""
    weights = torch.zeros(large, small).double()
    for i in range(large):
        place = i * (small - 1) / (large - 1)
        left = min(int(place), small - 2)
        weights[i, left], weights[i, left + 1] = left + 1 - place, place - left
    return weights


@pytest.mark.parametrize("width", [5, 6])
def test_from_a_coarser_map(width):
    """Corners lie on each other, whether a width is odd or even."""
    fuse = _randomise(ResizedFuse(5, 3))
    size = (5, 2 * width - 1)
    x, skip = torch.randn(2, 5, 3, width).double(), torch.randn(2, 3, *size).double()
    columns = _weights(width, size[1])
    resized = torch.einsum("yi,xj,ncij->ncyx", _weights(3, 5), columns, _project(fuse.project, x))
    torch.testing.assert_close(fuse(x, skip), resized + skip)


def test_from_a_finer_map():
    fuse = _randomise(ResizedFuse(5, 3, stride=2))
    x, other = torch.randn(2, 5, 5, 9).double(), torch.randn(2, 3, 3, 5).double()
    wanted = _project(fuse.project, x[:, :, ::2, ::2]) + other
    torch.testing.assert_close(fuse(x, other), wanted)


class _Add(nn.Module):
    """A block that tells which one it was."""

    def __init__(self, amount):
        super().__init__()
        self.amount = amount

    def forward(self, x):
        return x + self.amount


class _Sum(nn.Module):
    """Sum of what is fused, all of one size here."""

    def forward(self, x, skip):
        return x + skip


def _step(stride, amount):
    step = DecoderStep(stride, ResizedFuse(1, 1), DualPathStage([_Add(amount)]))
    step.fuse = _Sum()
    return step


def test_a_step_adds_the_feature_of_its_stride():
    features = {stride: torch.full((1, 1, 1, 1), 10.0 * stride) for stride in (4, 8)}
    memory = torch.zeros(1, 2, 3)
    pixels, same = _step(8, 0.5)(torch.ones(1, 1, 1, 1), memory, features)
    assert pixels.item() == 81.5
    assert same is memory


@pytest.mark.parametrize("stacked", [False, True])
def test_the_decoder(stacked):
    """Every number is a sum of what a map has seen."""
    one = torch.ones(1, 1, 1, 1)
    features = {2: 0 * one, 4: 1 * one, 8: 10 * one, 16: 100 * one}
    strides = (8, 4, 8, 16, 8, 4) if stacked else (8, 4)
    steps = nn.ModuleList(_step(stride, 0.0) for stride in strides)
    decoder = StackedDecoder(DualPathStage([_Add(1000.0)]), steps)
    decoded, memory = decoder(100 * one, torch.zeros(1, 2, 3), features)
    first4 = 1100 + 10 + 1
    second4 = first4 + 10 + 100 + 10 + 1
    assert [x.item() for x in decoded] == ([first4, second4] if stacked else [first4])
    assert memory.shape == (1, 2, 3)
