"""Pixel decoders: backbone features to mask features and transformer levels."""

from .axial import AxialPixelDecoder
from .deformable import DeformablePixelDecoder
from .fpn import FPNPixelDecoder
from .transformer_fpn import TransformerFPNPixelDecoder

__all__ = [
    "AxialPixelDecoder",
    "DeformablePixelDecoder",
    "FPNPixelDecoder",
    "TransformerFPNPixelDecoder",
]
