"""Meta-architectures: each wires parts from the registries and says which loss and results."""

from .mask2former import Mask2Former

__all__ = ["Mask2Former"]
