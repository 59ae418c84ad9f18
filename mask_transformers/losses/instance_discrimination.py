"""Pixel-wise instance discrimination (MaX-DeepLab, section "Auxiliary losses")."""

import torch
import torch.nn.functional as F


def instance_discrimination_loss(
    features: torch.Tensor, owner: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Contrasts k pixels, each with those of the same mask (itself too) as the positive ones.

    features (C, k), brought to length one; owner (k,) int64 index of the mask of each. The mean
    over pixels of the cross entropy between the softmax of similarities / ``temperature`` and the
    equal distribution over the pixels of the same mask; 0 without pixels.

    The mean similarity with the own mask is that with the mean of its pixels, so that the k × k
    positives are never built.
    """
    vectors = F.normalize(features, dim=0).T  # (k, C)
    if not len(vectors):
        return features.sum()
    masks, inverse, counts = owner.unique(return_inverse=True, return_counts=True)
    means = vectors.new_zeros(len(masks), vectors.shape[1]).index_add(0, inverse, vectors)
    means = means / counts[:, None]
    scaled = vectors / temperature
    own = (scaled * means[inverse]).sum(1)
    return (torch.logsumexp(scaled @ vectors.T, 1) - own).mean()
