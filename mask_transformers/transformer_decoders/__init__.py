"""Transformer decoders: queries to class logits and mask embeddings."""

from .masked_attention import MaskedAttentionDecoder

__all__ = ["MaskedAttentionDecoder"]
