"""The two-layer network inside transformer layers."""

import torch
from torch import nn


def feed_forward(x: torch.Tensor, expand: nn.Linear, contract: nn.Linear) -> torch.Tensor:
    """``contract(relu(expand(x)))`` of (..., C), for layers that own the two linear maps.

    Tokens are flattened first: a linear layer over more dimensions returns a view, and after an
    in-place ReLU on a view, autograd copies the whole gradient.
    """
    hidden = expand(x.flatten(0, -2)).relu_()
    return contract(hidden).view(x.shape)
