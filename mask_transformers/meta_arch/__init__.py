"""Meta-architectures: each wires parts from the registries and says which loss and results."""

from .detr import DETR
from .kmax_deeplab import KMaXDeepLab
from .mask2former import Mask2Former
from .maskformer import MaskFormer
from .max_deeplab import MaXDeepLab
from .per_pixel import PerPixelBaseline

__all__ = ["DETR", "KMaXDeepLab", "MaXDeepLab", "Mask2Former", "MaskFormer", "PerPixelBaseline"]
