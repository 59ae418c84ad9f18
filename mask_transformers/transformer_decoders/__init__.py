"""Transformer decoders: queries to class logits and mask embeddings."""

from .kmeans_decoder import KMeansDecoder
from .masked_attention import MaskedAttentionDecoder
from .standard import StandardDecoder

__all__ = ["KMeansDecoder", "MaskedAttentionDecoder", "StandardDecoder"]
