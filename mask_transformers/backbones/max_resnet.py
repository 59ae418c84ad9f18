"""ResNets of MaX-DeepLab: axial attention in the last two stages, and memory beside the pixels.

MaX-DeepLab-S has a ResNet-50 of bottlenecks with an Inception stem, L a wide ResNet of basic blocks
with one stage more and an hourglass behind it. A map of stride s has ``WIDTH`` · s channels, the
last one twice as many, as res5 keeps the stride 16 of res4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import nn

from ..layers.conv_norm import ConvNorm
from ..layers.residual_blocks import EXPANSION, AxialBlock, BasicBlock, Bottleneck
from ..transformer_decoders.dual_path import DualPathLayer, DualPathStage
from ..transformer_decoders.stacked_decoder import DecoderStep, Features, ResizedFuse

STRIDES = {"res1": 2, "res2": 4, "res3": 8, "res4": 16, "res5": 16}
FINEST, COARSEST = 4, 16  # strides of decoders
HOURGLASS = (8, 4, 8, 16)
DESCENT = (8, 4)


@dataclass(frozen=True)
class StageBuilder:
    """How the stages of one network look; ``basic``: wide ResNet, else bottlenecks."""

    basic: bool
    width: int
    memory_dim: int
    transformer_stages: tuple[str, ...]
    axial_heads: int = 8
    heads: int = 8
    ffn_dim: int = 2048
    drop_path: float = 0.0
    activation_checkpointing: bool = False

    def channels(self, name: str) -> int:
        """Channels of the stage ``name``; those of decoders are res2, res3 and res5."""
        return self.width * STRIDES[name] * (2 if name == "res5" else 1)

    def stage(self, name: str, in_channels: int, count: int, stride: int = 1) -> DualPathStage:
        """``count`` blocks of the kind of ``name``, the first with the ``stride``.

        Axial attention has none: a first block that has one is convolutional.
        """
        out = self.channels(name)
        axial = name in ("res4", "res5")
        drop_path = self.drop_path if name == "res5" else 0.0
        blocks: list[nn.Module] = []
        for c, s in zip(
            [in_channels, *[out] * (count - 1)], [stride, *[1] * (count - 1)], strict=True
        ):
            block = self._axial_block if axial and s == 1 else self._convolutional_block
            blocks.append(block(c, out, s, drop_path))
        layers = count if name in self.transformer_stages else 0
        return DualPathStage(
            blocks,
            [self._transformer(name, drop_path) for _ in range(layers)],
            activation_checkpointing=self.activation_checkpointing and axial,
        )

    def step(self, before: int, stride: int, blocks: int) -> DecoderStep:
        """A step of a decoder from the stride ``before``."""
        names = {4: "res2", 8: "res3", 16: "res5"}
        channels = self.channels(names[stride])
        fuse = ResizedFuse(
            self.channels(names[before]), channels, stride=2 if stride > before else 1
        )
        return DecoderStep(stride, fuse, self.stage(names[stride], channels, blocks))

    def steps(self, strides: Sequence[int], blocks: int) -> nn.ModuleList:
        """Steps from stride 16 on along ``strides``."""
        pairs = pairwise((COARSEST, *strides))
        return nn.ModuleList(self.step(before, stride, blocks) for before, stride in pairs)

    def _convolutional_block(
        self, in_channels: int, out: int, stride: int, drop_path: float
    ) -> nn.Module:
        block, width = (BasicBlock, out) if self.basic else (Bottleneck, out // EXPANSION)
        return block(in_channels, width, stride=stride, drop_path=drop_path, activation=F.relu)

    def _axial_block(self, in_channels: int, out: int, _: int, drop_path: float) -> nn.Module:
        expansion = 2 if self.basic else EXPANSION
        return AxialBlock(
            in_channels,
            out // expansion,
            self.axial_heads,
            expansion=expansion,
            drop_path=drop_path,
            activation=F.relu,
        )

    def _transformer(self, name: str, drop_path: float) -> DualPathLayer:
        return DualPathLayer(
            self.channels(name),
            self.memory_dim,
            hidden_dim=self.memory_dim if name == "res5" else self.memory_dim // 2,
            heads=self.heads,
            ffn_dim=self.ffn_dim,
            drop_path=drop_path,
        )


class MaXResNet(Backbone):
    """Stages of pixels, the last ones with memory; in L also an hourglass, pretrained with them."""

    @configurable
    def __init__(self, builder: StageBuilder, *, blocks: Sequence[int], stacks: int = 0) -> None:
        """``blocks`` of res2 to res5; ``stacks``: number of hourglasses."""
        super().__init__()
        self.builder = builder
        width = builder.width
        if builder.basic:
            self.stem = nn.Sequential(ConvNorm(3, width, 3, stride=2))
            counts = dict(zip(STRIDES, [3, *blocks], strict=True))
            channels = width
        else:
            # Inception stem: three convolutions in place of one of 7×7; no pooling comes after.
            self.stem = nn.Sequential(
                ConvNorm(3, width, 3, stride=2, activation=F.relu),
                ConvNorm(width, width, 3, activation=F.relu),
                ConvNorm(width, 2 * width, 3),
            )
            counts = dict(zip(list(STRIDES)[1:], blocks, strict=True))
            channels = 2 * width
        self.stages = nn.ModuleDict()
        stride = 2
        for name, count in counts.items():
            step = STRIDES[name] // stride
            self.stages[name] = builder.stage(name, channels, count, step)
            channels, stride = builder.channels(name), STRIDES[name]
        self.steps = builder.steps(HOURGLASS * stacks, blocks=1)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments from ``MODEL.MAX_RESNET``."""
        part = cfg.MODEL.MAX_RESNET
        return {
            "builder": stage_builder(cfg),
            "blocks": list(part.BLOCKS),
            "stacks": part.STACKS,
        }

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides of the stages."""
        return {
            name: ShapeSpec(channels=self.builder.channels(name), stride=STRIDES[name])
            for name in self.stages
        }

    def forward(  # type: ignore[override]
        self, images: torch.Tensor, memory: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, Features]:
        """``images`` (N, 3, H, W) and ``memory`` (N, D, Q).

        Returns the map with stride 16 (N, C, h, w), the memory, and the stages' features by stride.
        """
        pixels = self.stem(images)
        features: Features = {}
        for name, stage in self.stages.items():
            pixels, memory = stage(pixels, memory)
            features[STRIDES[name]] = pixels  # of res4 and res5 the last counts
        for step in self.steps:
            pixels, memory = step(pixels, memory, features)
        return pixels, memory, features


@BACKBONE_REGISTRY.register()
def build_max_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MaXResNet:
    """The backbone of MaX-DeepLab, which no other system can use: it takes memory, too."""
    return MaXResNet(cfg)


def stage_builder(cfg: CfgNode) -> StageBuilder:
    """Builder of the stages of the backbone and the decoder.

    ValueError: another meta-architecture, which would not give the backbone a memory.
    """
    if cfg.MODEL.META_ARCHITECTURE != "MaXDeepLab":
        raise ValueError(
            f"MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME!r} takes memory beside images, which "
            f"only MaXDeepLab has, not MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE!r}"
        )
    part, node = cfg.MODEL.MAX_RESNET, cfg.MODEL.MASK_TRANSFORMER
    return StageBuilder(
        basic=part.BLOCK == "basic",
        width=part.WIDTH,
        memory_dim=node.HIDDEN_DIM,
        transformer_stages=tuple(part.TRANSFORMER_STAGES),
        axial_heads=part.HEADS,
        heads=node.TRANSFORMER_DECODER.HEADS,
        ffn_dim=node.TRANSFORMER_DECODER.FFN_DIM,
        drop_path=part.DROP_PATH_RATE,
        activation_checkpointing=part.ACTIVATION_CHECKPOINTING,
    )
