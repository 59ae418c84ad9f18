"""The product that every mask transformer ends in."""

import torch


def predict_masks(embedding: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Mask logits (N, Q, h, w) from embeddings (N, Q, C) and features (N, C, h, w)."""
    return torch.einsum("nqc,nchw->nqhw", embedding, features)
