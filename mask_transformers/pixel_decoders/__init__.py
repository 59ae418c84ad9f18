"""Pixel decoders: backbone features to mask features and transformer levels."""

from .deformable import DeformablePixelDecoder

__all__ = ["DeformablePixelDecoder"]
