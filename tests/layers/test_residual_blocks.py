import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mask_transformers.layers.conv_norm import ConvNorm, SyncNorm
from mask_transformers.layers.residual_blocks import AxialBlock, BasicBlock, Bottleneck


def _randomise(module):
    for part in module.modules():
        if isinstance(part, SyncNorm):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module.double().eval()


def _conv_norm(layer, x, stride=1):
    """A convolution by explicit windows, then the norm."""
    side = layer.conv.kernel_size[0]
    windows = F.unfold(x, side, padding=side // 2, stride=stride)
    y = torch.einsum("ok,nkp->nop", layer.conv.weight.flatten(1), windows)
    norm = layer.norm
    y = (y - norm.running_mean[:, None]) / (norm.running_var[:, None] + 1e-3).sqrt()
    y = y * norm.weight[:, None] + norm.bias[:, None]
    return y.unflatten(2, tuple(-(-side // stride) for side in x.shape[2:]))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("in_channels", [5, 16])
@pytest.mark.parametrize("size", [(7, 5), (6, 9)])
def test_convolutional_blocks(stride, in_channels, size):
    x = torch.randn(2, in_channels, *size).double()
    start = F.relu(x)
    for kind, width in ((BasicBlock, 16), (Bottleneck, 4)):
        block = _randomise(kind(in_channels, width, stride=stride, activation=F.relu))
        assert isinstance(block.shortcut, ConvNorm) == (in_channels == 5 or stride == 2)
        shortcut = start
        if isinstance(block.shortcut, ConvNorm):
            shortcut = _conv_norm(block.shortcut, start, stride)
        if kind is BasicBlock:
            y = F.relu(_conv_norm(block.conv1, start, stride))
            y = _conv_norm(block.conv2, y)
        else:
            y = F.relu(_conv_norm(block.conv1, start))
            y = F.relu(_conv_norm(block.conv2, y, stride))
            y = _conv_norm(block.conv3, y)
        torch.testing.assert_close(block(x), y + shortcut)


@pytest.mark.parametrize("expansion", [2, 4])
def test_axial_blocks(expansion):
    block = _randomise(AxialBlock(5, 4, 2, expansion=expansion, activation=F.relu))
    x = torch.randn(2, 5, 6, 7).double()
    start = F.relu(x)
    y = block.attention(F.relu(_conv_norm(block.conv1, start)))
    wanted = _conv_norm(block.conv3, F.relu(y)) + _conv_norm(block.shortcut, start)
    assert wanted.shape == (2, 4 * expansion, 6, 7)
    torch.testing.assert_close(block(x), wanted)


def test_a_new_block_is_its_shortcut():
    x = torch.randn(2, 16, 5, 6)
    for block in (BasicBlock(16, 16), Bottleneck(16, 4), AxialBlock(16, 4, 2)):
        torch.testing.assert_close(block(x), F.gelu(x))
