"""A pretrained start for MaX-DeepLab: a model of timm up to stride 16, then the last stage."""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import nn

from ..layers.conv_norm import ConvNorm
from ..transformer_decoders.stacked_decoder import Features
from .max_resnet import STRIDES, StageBuilder, stage_builder
from .timm import build_timm_backbone

TRUNK_FEATURES = ("res2", "res3", "res4")


class MaXTimm(Backbone):
    """``MaXResNet`` whose convolutional stages are those of another network.

    Where there is no published checkpoint to start from, weights of ImageNet save most of a
    training. Memory and axial attention begin at res5, as in MaX-DeepLab-S.
    """

    @configurable
    def __init__(self, builder: StageBuilder, trunk: Backbone, *, blocks: int) -> None:
        """``trunk`` has the features res2, res3 and res4; ``blocks`` of res5."""
        super().__init__()
        self.builder = builder
        self.trunk = trunk
        shapes = trunk.output_shape()
        self.projections = nn.ModuleDict(
            {name: ConvNorm(shapes[name].channels, builder.channels(name)) for name in shapes}
        )
        self.last = builder.stage("res5", builder.channels("res4"), blocks)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments from ``MODEL.TIMM`` and ``MODEL.MAX_RESNET``."""
        return {
            "builder": stage_builder(cfg),
            "trunk": build_timm_backbone(cfg),
            "blocks": cfg.MODEL.MAX_RESNET.BLOCKS[-1],
        }

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides of the stages."""
        return {
            name: ShapeSpec(channels=self.builder.channels(name), stride=STRIDES[name])
            for name in (*TRUNK_FEATURES, "res5")
        }

    def forward(  # type: ignore[override]
        self, images: torch.Tensor, memory: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, Features]:
        """As ``MaXResNet``."""
        features: Features = {
            STRIDES[name]: self.projections[name](x) for name, x in self.trunk(images).items()
        }
        pixels, memory = self.last(features[STRIDES["res4"]], memory)
        features[STRIDES["res5"]] = pixels
        return pixels, memory, features


@BACKBONE_REGISTRY.register()
def build_max_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MaXTimm:
    """The backbone of a small MaX-DeepLab, which no other system can use: it takes memory, too."""
    return MaXTimm(cfg)
