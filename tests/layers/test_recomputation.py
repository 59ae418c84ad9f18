import pytest
import torch
from torch import nn

from mask_transformers.layers.conv_norm import ConvNorm
from mask_transformers.layers.recomputation import recomputed
from mask_transformers.layers.residual_blocks import AxialBlock


@pytest.fixture
def blocks():
    """Two blocks with the same weights, in training."""
    torch.manual_seed(1)
    one = AxialBlock(8, 4, 2).double()
    for parameter in one.parameters():
        nn.init.normal_(parameter)
    two = AxialBlock(8, 4, 2).double()
    two.load_state_dict(one.state_dict())
    return one.train(), two.train()


def test_results_gradients_and_statistics_are_the_same(blocks):
    one, two = blocks
    x, y = (torch.randn(2, 8, 5, 6, dtype=torch.double).requires_grad_() for _ in range(2))
    y.data.copy_(x.data)
    wanted, found = one(x), recomputed(two, y)
    torch.testing.assert_close(found, wanted)
    for result in (wanted, found):
        (result**2).sum().backward()
    torch.testing.assert_close(y.grad, x.grad)
    for ours, theirs in zip(two.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    for (name, value), theirs in zip(two.named_buffers(), one.buffers(), strict=True):
        torch.testing.assert_close(value, theirs, msg=name)
    assert two.conv1.norm.num_batches_tracked == 1
    assert two.conv1.norm.momentum == 0.01


def test_activations_are_not_kept():
    layer = nn.Sequential(*(ConvNorm(3, 3, activation=torch.relu) for _ in range(4)))
    x = torch.randn(2, 3, 16, 16, requires_grad=True)

    def saved(function):
        numbers = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: numbers.append(t.numel()) or t, lambda t: t
        ):
            function(x).sum()
        return sum(numbers)

    assert saved(lambda x: recomputed(layer, x)) < saved(layer) / 4


def test_without_gradients_it_is_a_call(blocks):
    block = blocks[0].eval()
    x = torch.randn(1, 8, 3, 3, dtype=torch.double)
    with torch.no_grad():
        assert torch.equal(recomputed(block, x), block(x))
