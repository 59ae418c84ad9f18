"""The two-layer network inside transformer layers."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


def feed_forward(
    x: torch.Tensor, expand: nn.Linear, contract: nn.Linear, dropout: float = 0.0
) -> torch.Tensor:
    """``contract(dropout(relu(expand(x))))`` of (..., C), for layers that own the linear maps.

    The hidden tokens, the largest activation of a layer, are not kept for the backward pass but
    computed a second time.
    """
    if not torch.is_grad_enabled():
        return _feed_forward(x, expand, contract, dropout)
    return checkpoint(
        _feed_forward,
        x,
        expand,
        contract,
        dropout,
        use_reentrant=False,
        preserve_rng_state=dropout > 0,  # the same units are dropped the second time
    )


def _feed_forward(
    x: torch.Tensor, expand: nn.Linear, contract: nn.Linear, dropout: float
) -> torch.Tensor:
    # Flat, as a linear layer over more dimensions returns a view, and after an in-place ReLU on
    # a view autograd copies the whole gradient.
    hidden = expand(x.flatten(0, -2)).relu_()
    return contract(F.dropout(hidden, dropout)).view(x.shape)
