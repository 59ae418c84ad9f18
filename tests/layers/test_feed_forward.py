"""The feed-forward network equals its formula, and keeps little for the backward pass."""

import torch
from torch import nn

from mask_transformers.layers.feed_forward import feed_forward


def _plain(x, expand, contract):
    return contract(expand(x).relu())


def test_values_and_gradients_equal_the_formula():
    expand, contract = nn.Linear(6, 24), nn.Linear(24, 6)
    x = torch.randn(2, 5, 6, requires_grad=True)
    gradient = torch.randn(2, 5, 6)
    inputs = [x, *expand.parameters(), *contract.parameters()]
    one, other = feed_forward(x, expand, contract), _plain(x, expand, contract)
    torch.testing.assert_close(one, other)
    for ours, expected in zip(
        torch.autograd.grad(one, inputs, gradient),
        torch.autograd.grad(other, inputs, gradient),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected)
    with torch.no_grad():
        torch.testing.assert_close(feed_forward(x, expand, contract), other)


def test_hidden_tokens_are_not_kept():
    expand, contract = nn.Linear(6, 24), nn.Linear(24, 6)
    kept = []

    def pack(tensor):
        kept.append(tensor.shape[-1])
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        feed_forward(torch.randn(5, 6), expand, contract)
        assert 24 not in kept
        _plain(torch.randn(5, 6), expand, contract)
        assert 24 in kept
