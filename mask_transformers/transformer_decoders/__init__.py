"""Transformer decoders: queries to class logits and mask embeddings."""

from .masked_attention import MaskedAttentionDecoder
from .standard import StandardDecoder

__all__ = ["MaskedAttentionDecoder", "StandardDecoder"]
