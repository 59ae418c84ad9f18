import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from timm.layers import DropPath
from torch import nn

from mask_transformers.layers.conv_norm import ConvNorm, SyncNorm
from mask_transformers.pixel_decoders.axial import AxialBlock, AxialPixelDecoder, Bottleneck, Fuse
from mask_transformers.registry import PIXEL_DECODERS

CHANNELS = {"res2": 3, "res3": 5, "res4": 7, "res5": 9}
# Official names of tensors to ours.
NAMES = {
    "_in_norms": "in_norms",
    "_stages": "stages",
    "._blocks": "",
    "_conv1_bn_act": "conv1",
    "_conv2_bn_act": "conv2",
    "_conv3_bn": "conv3",
    "_shortcut": "shortcut",
    "_attention": "attention",
    "_height_axis": "height",
    "_width_axis": "width",
    "qkv_transform.conv": "qkv",
    "_batch_norm_qkv": "qkv_norm",
    "_batch_norm_similarity": "similarity_norm",
    "_batch_norm_retrieved_output": "output_norm",
    "_query_rpe._embeddings": "query_position",
    "_key_rpe._embeddings": "key_position",
    "_value_rpe._embeddings": "value_position",
    "_resized_fuses": "fuses",
    "_conv_bn_low": "low",
    "_conv_bn_high": "high",
}


def _shapes(channels):
    strides = zip(channels.items(), (4, 8, 16, 32), strict=False)
    return {name: ShapeSpec(channels=c, stride=stride) for (name, c), stride in strides}


def _decoder(in_features=tuple(CHANNELS), blocks=(1, 2, 1, 2), width=32, heads=2, drop_path=0.0):
    return AxialPixelDecoder(
        _shapes(CHANNELS),
        in_features=list(in_features),
        blocks=list(blocks),
        width=width,
        heads=heads,
        drop_path=drop_path,
    )


def _features(batch=2, height=64, width=96):
    return {
        name: torch.randn(batch, c, -(-height // stride), -(-width // stride))
        for (name, c), stride in zip(CHANNELS.items(), (4, 8, 16, 32), strict=True)
    }


def _randomise(module):
    for part in module.modules():
        if isinstance(part, SyncNorm):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module.double()


def _conv_norm(module, x, training):
    """Convolution by explicit windows, then batch norm."""
    side = module.conv.kernel_size[0]
    windows = F.unfold(x, side, padding=side // 2)  # (N, C·side², h·w)
    y = torch.einsum("ok,nkp->nop", module.conv.weight.flatten(1), windows)
    norm = module.norm
    mean = y.mean((0, 2)) if training else norm.running_mean
    var = y.var((0, 2), unbiased=False) if training else norm.running_var
    y = (y - mean[:, None]) / (var[:, None] + 1e-3).sqrt()
    return (y * norm.weight[:, None] + norm.bias[:, None]).unflatten(2, x.shape[2:])


def _gelu(x):
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def _reference_block(block, x, training):
    x = _gelu(x)
    shortcut = x
    if isinstance(block.shortcut, ConvNorm):
        shortcut = _conv_norm(block.shortcut, x, training)
    x = _gelu(_conv_norm(block.conv1, x, training))
    if isinstance(block, Bottleneck):
        x = _conv_norm(block.conv2, x, training)
    else:
        x = block.attention(x)
    return _conv_norm(block.conv3, _gelu(x), training) + shortcut


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("in_channels", [5, 16])
@pytest.mark.parametrize("kind", [Bottleneck, AxialBlock])
def test_blocks(kind, in_channels, training):
    block = _randomise(kind(in_channels, 4) if kind is Bottleneck else kind(in_channels, 4, 2))
    assert isinstance(block.shortcut, ConvNorm) == (in_channels == 5)
    x = torch.randn(2, in_channels, 6, 5).double()
    block.train(training)
    torch.testing.assert_close(block(x), _reference_block(block, x, training))


def test_a_new_block_is_its_shortcut():
    block = AxialBlock(16, 4, 2)
    x = torch.randn(2, 16, 5, 6)
    torch.testing.assert_close(block(x), F.gelu(x))


@pytest.mark.parametrize("training", [False, True])
def test_fuse(training):
    fuse = _randomise(Fuse(5, 3, 4)).train(training)
    low, high = torch.randn(2, 5, 3, 2).double(), torch.randn(2, 3, 5, 3).double()
    coarse = _conv_norm(fuse.low, _gelu(low), training)
    # Every pixel of the coarse map lies on one of the fine map where sizes are 2n - 1; of an even
    # width corners are not aligned, and a third of the way from edge to edge is a half pixel.
    wide = torch.stack([coarse[..., 0], coarse.mean(-1), coarse[..., 1]], -1)
    assert fuse(low, high).shape == (2, 4, 5, 3)
    odd = torch.cat([low, low[..., :1]], -1)  # (2, 5, 3, 3)
    fine = torch.randn(2, 3, 5, 5).double()
    coarse = _conv_norm(fuse.low, _gelu(odd), training)
    found = fuse(odd, fine) - _conv_norm(fuse.high, _gelu(fine), training)
    torch.testing.assert_close(found[:, :, ::2, ::2], coarse)
    torch.testing.assert_close(found[:, :, 1::2, ::2], (coarse[:, :, 1:] + coarse[:, :, :-1]) / 2)
