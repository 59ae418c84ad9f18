"""ConvNeXt (Liu et al., CVPR 2022) as a Detectron2 backbone, for images of any size."""

import functools
from typing import Any, NamedTuple, cast

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.layers import LayerNorm2d
from timm.models.convnext import ConvNeXtBlock
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .convnext_weights import load_convnext_weights


class Variant(NamedTuple):
    """Width after the stem, blocks of the four stages."""

    width: int
    depths: tuple[int, int, int, int]


# Section 3 of the paper.
VARIANTS = {
    "tiny": Variant(96, (3, 3, 9, 3)),
    "small": Variant(96, (3, 3, 27, 3)),
    "base": Variant(128, (3, 3, 27, 3)),
    "large": Variant(192, (3, 3, 27, 3)),
}
PATCH_SIZE, COARSEST = 4, 32
EPSILON = 1e-6


class ConvNeXtBackbone(Backbone):
    """Features ``res2`` to ``res5`` with strides 4 to 32, as they leave the blocks, without a norm.

    As published, no convolution that downsamples has padding. So a side of 32k or 32k + 1 pixels
    gives 32k / stride rows or columns, without the last pixel of the latter; other sides are padded
    by zeros, at the bottom and right, to the next multiple of 32.
    """

    @configurable
    def __init__(
        self,
        *,
        variant: str = "tiny",
        drop_path_rate: float = 0.3,
        layer_scale: float = 1e-6,
        weights: str = "",
        activation_checkpointing: bool = False,
    ) -> None:
        """Create a ConvNeXt without classifier.

        Args:
            variant: "tiny", "small", "base" or "large".
            drop_path_rate: probability of leaving out the last block in training; it increases
                linearly from 0 in the first block (stochastic depth).
            layer_scale: what the factors of the channels of every block start from.
            weights: "" for random ones, "imagenet" (ImageNet-1K), "imagenet22k", or the path of a
                state dict in timm's or the authors' names.
            activation_checkpointing: recompute the blocks in the backward pass to save memory.

        Raises:
            ValueError: unknown ``variant``, impossible rate, weights that do not fit.
            FileNotFoundError, RuntimeError: weights that are not there.
        """
        super().__init__()
        _check(variant, drop_path_rate)
        width, depths = VARIANTS[variant]
        widths = [width * 2**stage for stage in range(len(depths))]
        self.recompute = activation_checkpointing
        self.downsample_layers = nn.ModuleList([_stem(width), *map(_halve, widths[:-1])])
        last = sum(depths) - 1
        rates = iter(drop_path_rate * i / last for i in range(last + 1))
        norm = functools.partial(nn.LayerNorm, eps=EPSILON)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                ConvNeXtBlock(
                    dim, drop_path=next(rates), ls_init_value=layer_scale, norm_layer=norm
                )
                for _ in range(depth)
            )
            for dim, depth in zip(widths, depths, strict=True)
        )
        self.apply(_initialize)
        self._out_features = [f"res{i + 2}" for i in range(len(depths))]
        self._out_feature_channels = dict(zip(self._out_features, widths, strict=True))
        self._out_feature_strides = {f: PATCH_SIZE * 2**i for i, f in enumerate(self._out_features)}
        load_convnext_weights(self, variant, weights)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec | None = None) -> dict[str, Any]:
        """Arguments of the constructor from ``MODEL.CONVNEXT``."""
        if input_shape is not None and input_shape.channels not in (None, 3):
            raise ValueError(
                "ConvNeXt backbones take RGB images, but MODEL.PIXEL_MEAN has "
                f"{input_shape.channels} channels"
            )
        node = cfg.MODEL.CONVNEXT
        return {
            "variant": node.VARIANT,
            "drop_path_rate": node.DROP_PATH_RATE,
            "weights": node.WEIGHTS,
            "activation_checkpointing": node.ACTIVATION_CHECKPOINTING,
        }

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images (N, 3, H, W) to features {name: (N, C, h, w)}, sizes as told above."""
        x = _pad(images)
        features = {}
        stages = zip(self._out_features, self.downsample_layers, self.stages, strict=True)
        for name, downsample, blocks in stages:
            x = downsample(x)
            for block in cast(nn.ModuleList, blocks):
                if self.recompute and torch.is_grad_enabled():
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            features[name] = x
        return features


def build_convnext_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> ConvNeXtBackbone:
    """Build a `ConvNeXtBackbone` from ``MODEL.CONVNEXT``."""
    return ConvNeXtBackbone(cfg, input_shape)


BACKBONE_REGISTRY.register(build_convnext_backbone)


def _check(variant: str, drop_path_rate: float) -> None:
    if variant not in VARIANTS:
        raise ValueError(f"MODEL.CONVNEXT.VARIANT is {variant!r}; known: {', '.join(VARIANTS)}")
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"MODEL.CONVNEXT.DROP_PATH_RATE must be in [0, 1), not {drop_path_rate}")


def _stem(width: int) -> nn.Sequential:
    patches = nn.Conv2d(3, width, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)
    return nn.Sequential(patches, LayerNorm2d(width, eps=EPSILON))


def _halve(width: int) -> nn.Sequential:
    norm = LayerNorm2d(width, eps=EPSILON)
    return nn.Sequential(norm, nn.Conv2d(width, 2 * width, kernel_size=2, stride=2))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _pad(images: torch.Tensor) -> torch.Tensor:
    height, width = (_missing(side) for side in images.shape[-2:])
    return F.pad(images, (0, width, 0, height)) if height or width else images


def _missing(side: int) -> int:
    """Pixels up to the next multiple of 32; of 32k + 1 pixels the last one is not seen instead."""
    return 0 if side > COARSEST and side % COARSEST == 1 else -side % COARSEST
