"""The heads of MaX-DeepLab and kMaX-DeepLab: classes and masks of queries in a map of pixels."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ..heads import predict_masks
from ..layers.conv_norm import ConvNorm, LinearNorm, SyncNorm
from ..structures import DensePrediction

HIDDEN_DIM = 256  # of the pixels before their mask features
VOID_PRIOR = 0.9  # probability of no-object that class logits start from


class MaskPredictor(nn.Module):
    """Masks are products of pixel features of length one and mask embeddings, then one norm."""

    def __init__(
        self,
        pixel_channels: int,
        query_dim: int,
        num_classes: int,
        *,
        mask_dim: int = 128,
        mask_scale: float = 0.1,
        activation: Callable[[torch.Tensor], torch.Tensor] = F.gelu,
    ) -> None:
        """Takes pixels of ``pixel_channels`` and queries of ``query_dim``.

        ``mask_scale``: deviation of the mask logits at the start.
        """
        super().__init__()
        channels = pixel_channels
        self.depthwise = ConvNorm(channels, channels, 5, groups=channels, activation=activation)
        self.pointwise = ConvNorm(channels, HIDDEN_DIM, activation=activation)
        self.pixel_out = ConvNorm(HIDDEN_DIM, mask_dim, bias=True)
        self.mask_embed = LinearNorm(query_dim, mask_dim)
        self.class_embed = nn.Conv1d(query_dim, num_classes + 1, 1)
        self.mask_norm = SyncNorm(1, scale=mask_scale)
        self.void_bias = math.log(num_classes * VOID_PRIOR / (1 - VOID_PRIOR))
        nn.init.xavier_uniform_(self.depthwise.conv.weight)
        for layer in (self.pixel_out.conv, self.class_embed):
            nn.init.trunc_normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(
        self, class_query: torch.Tensor, mask_query: torch.Tensor, pixels: torch.Tensor
    ) -> DensePrediction:
        """Queries (N, C, Q) and ``pixels`` (N, C', h, w)."""
        features = self.pixel_out(self.pointwise(self.depthwise(pixels)))
        features = F.normalize(features, dim=1)
        logits = self.class_embed(class_query).transpose(1, 2)  # (N, Q, K+1)
        bias = torch.zeros_like(logits[0, 0])
        bias[-1] = self.void_bias
        masks = predict_masks(self.mask_embed(mask_query).transpose(1, 2), features)
        normed = self.mask_norm(masks.flatten(2).unsqueeze(1))  # one channel (N, 1, Q, h·w)
        return DensePrediction(logits + bias, normed.view(masks.shape), features)
