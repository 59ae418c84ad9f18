"""Multi-layer perceptron."""

from itertools import pairwise

import torch
from torch import nn


class MLP(nn.Module):
    """Linear layers with ReLU between them: ``(..., C_in)`` to ``(..., C_out)``."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int) -> None:
        super().__init__()
        dims = [in_dim] + [hidden_dim] * (num_layers - 1) + [out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply all layers; no activation after the last one."""
        for layer in self.layers[:-1]:
            x = layer(x).relu_()
        return self.layers[-1](x)
