"""Semantic inference on probabilities (MaskFormer, section 3.4; kMaX-DeepLab)."""

import torch


def semantic_inference(class_logits: torch.Tensor, mask_logits: torch.Tensor) -> torch.Tensor:
    """Σ_q p_q(c) · sigmoid(mask_q): (Q, K+1) and (Q, H, W) to scores (K, H, W)."""
    classes = class_logits.softmax(-1)[:, :-1]
    return torch.einsum("qc,qhw->chw", classes, mask_logits.sigmoid())


def kmax_semantic_inference(class_logits: torch.Tensor, mask_logits: torch.Tensor) -> torch.Tensor:
    """Σ_q p_q(c) · softmax_q(mask): the same for masks that share a pixel's probability."""
    classes = class_logits.softmax(-1)[:, :-1]
    return torch.einsum("qc,qhw->chw", classes, mask_logits.softmax(0))
