"""Pixel decoders: backbone features to mask features and transformer levels."""

from .deformable import DeformablePixelDecoder
from .fpn import FPNPixelDecoder
from .transformer_fpn import TransformerFPNPixelDecoder

__all__ = ["DeformablePixelDecoder", "FPNPixelDecoder", "TransformerFPNPixelDecoder"]
