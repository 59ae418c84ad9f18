"""Frozen norms folded into convolutions: the same values, gradients and names."""

import copy

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn

from mask_transformers.backbones.frozen_norm import FoldedConv2d, fold_frozen_norms


def _convolutions():
    layers = []
    for channels in (3, 8):
        norm = FrozenBatchNorm2d(8)
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        conv = Conv2d(channels, 8, 3, padding=1, stride=2, bias=False, norm=norm)
        conv.activation = torch.relu if channels == 3 else None
        layers.append(conv)
    return nn.Sequential(*layers)


def test_folding_changes_neither_values_nor_gradients_nor_names():
    plain = _convolutions()
    folded = copy.deepcopy(plain)
    fold_frozen_norms(folded)
    assert all(isinstance(layer, FoldedConv2d) for layer in folded)
    assert list(folded.state_dict()) == list(plain.state_dict())
    image = torch.randn(2, 3, 17, 12)
    one, other = plain(image), folded(image)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    gradient = torch.randn_like(one)
    one.backward(gradient)
    other.backward(gradient)
    for p, q in zip(plain.parameters(), folded.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-4, rtol=1e-4)


def test_other_norms_and_biases_are_left_alone():
    layers = nn.Sequential(
        Conv2d(3, 4, 1, bias=False, norm=nn.BatchNorm2d(4)),
        Conv2d(4, 4, 1, bias=True, norm=FrozenBatchNorm2d(4)),
        Conv2d(4, 4, 1),
    )
    fold_frozen_norms(layers)
    assert not any(isinstance(layer, FoldedConv2d) for layer in layers)
