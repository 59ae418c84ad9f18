"""Semantic inference on probabilities (MaskFormer, section 3.4)."""

import torch


def semantic_inference(class_logits: torch.Tensor, mask_logits: torch.Tensor) -> torch.Tensor:
    """Σ_q p_q(c) · sigmoid(mask_q): (Q, K+1) and (Q, H, W) to scores (K, H, W)."""
    classes = class_logits.softmax(-1)[:, :-1]
    return torch.einsum("qc,qhw->chw", classes, mask_logits.sigmoid())
