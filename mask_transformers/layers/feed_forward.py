"""The two-layer network inside transformer layers."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def feed_forward(x: torch.Tensor, expand: nn.Linear, contract: nn.Linear) -> torch.Tensor:
    """``contract(relu(expand(x)))`` of (..., C), for layers that own the two linear maps.

    The hidden tokens, the largest activation of a layer, are not kept for the backward pass but
    computed a second time.
    """
    if torch.is_grad_enabled():
        return checkpoint(
            _feed_forward, x, expand, contract, use_reentrant=False, preserve_rng_state=False
        )
    return _feed_forward(x, expand, contract)


def _feed_forward(x: torch.Tensor, expand: nn.Linear, contract: nn.Linear) -> torch.Tensor:
    # Flat, as a linear layer over more dimensions returns a view, and after an in-place ReLU on
    # a view autograd copies the whole gradient.
    hidden = expand(x.flatten(0, -2)).relu_()
    return contract(hidden).view(x.shape)
