"""Swin Transformer (Liu et al., ICCV 2021) as a Detectron2 backbone, for images of any size."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.layers import PatchEmbed
from timm.models.swin_transformer import PatchMerging
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .swin_block import SwinBlock
from .swin_weights import load_swin_weights


class Variant(NamedTuple):
    """Width after the patch embedding, blocks and attention heads of the four stages."""

    width: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]


# Section 3.3 of the paper.
VARIANTS = {
    "tiny": Variant(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": Variant(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": Variant(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": Variant(192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
PATCH_SIZE = 4


class SwinStage(nn.Module):
    """Blocks of one resolution, every second one shifted, and the step to the next resolution."""

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        drop_paths: Sequence[float],
        *,
        merge: bool,
        recompute: bool = False,
    ) -> None:
        """One block for each of ``drop_paths``; ``recompute`` them in the backward pass."""
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads, window, shifted=i % 2 == 1, drop_path=rate)
            for i, rate in enumerate(drop_paths)
        )
        self.downsample = PatchMerging(dim) if merge else None
        self.recompute = recompute

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, H, W, C) to the output of the blocks and the input of the next stage.

        The latter is (N, ceil(H / 2), ceil(W / 2), 2C), or the output itself in the last stage.
        """
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x, x if self.downsample is None else self.downsample(_pad_to_even(x))


class SwinBackbone(Backbone):
    """Features ``res2`` to ``res5`` with strides 4 to 32, each after a layer norm of its own.

    Images of any size are accepted and padded, at the bottom and right: by zeros to the patch size,
    each stage to the window size, each merging step to even sizes. The features are
    ceil(H / stride) × ceil(W / stride).
    """

    @configurable
    def __init__(
        self,
        *,
        variant: str = "tiny",
        window_size: int = 7,
        drop_path_rate: float = 0.3,
        weights: str = "",
        activation_checkpointing: bool = False,
    ) -> None:
        """Create a Swin Transformer without absolute position embedding.

        Args:
            variant: "tiny", "small", "base" or "large".
            window_size: side of the attention windows in tokens; published weights have 7 or 12.
            drop_path_rate: probability of leaving out a branch of the last block in training;
                it increases linearly from 0 in the first block (stochastic depth).
            weights: "" for random ones, "imagenet" (ImageNet-1K), "imagenet22k", or the path of a
                state dict in timm's or the authors' names.
            activation_checkpointing: recompute the blocks in the backward pass to save memory.

        Raises:
            ValueError: unknown ``variant``, impossible numbers, weights that do not fit.
            FileNotFoundError, RuntimeError: weights that are not there.
        """
        super().__init__()
        _check(variant, window_size, drop_path_rate)
        width, depths, heads = VARIANTS[variant]
        widths = [width * 2**stage for stage in range(len(depths))]
        self.patch_embed = PatchEmbed(
            img_size=None,
            patch_size=PATCH_SIZE,
            embed_dim=width,
            norm_layer=nn.LayerNorm,
            output_fmt="NHWC",
            dynamic_img_pad=True,
        )
        last = sum(depths) - 1
        rates = iter(drop_path_rate * i / last for i in range(last + 1))
        self.layers = nn.ModuleList(
            SwinStage(
                widths[i],
                heads[i],
                window_size,
                list(itertools.islice(rates, depth)),
                merge=i + 1 < len(depths),
                recompute=activation_checkpointing,
            )
            for i, depth in enumerate(depths)
        )
        for i, dim in enumerate(widths):
            self.add_module(f"norm{i}", nn.LayerNorm(dim))
        self.apply(_initialize)
        self._out_features = [f"res{i + 2}" for i in range(len(depths))]
        self._out_feature_channels = dict(zip(self._out_features, widths, strict=True))
        self._out_feature_strides = {f: PATCH_SIZE * 2**i for i, f in enumerate(self._out_features)}
        load_swin_weights(self, variant, window_size, weights)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec | None = None) -> dict[str, Any]:
        """Arguments of the constructor from ``MODEL.SWIN``."""
        if input_shape is not None and input_shape.channels not in (None, 3):
            raise ValueError(
                "Swin backbones take RGB images, but MODEL.PIXEL_MEAN has "
                f"{input_shape.channels} channels"
            )
        node = cfg.MODEL.SWIN
        return {
            "variant": node.VARIANT,
            "window_size": node.WINDOW_SIZE,
            "drop_path_rate": node.DROP_PATH_RATE,
            "weights": node.WEIGHTS,
            "activation_checkpointing": node.ACTIVATION_CHECKPOINTING,
        }

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images (N, 3, H, W) to features {name: (N, C, ceil(H / s), ceil(W / s))}."""
        x = self.patch_embed(images)  # (N, H, W, C) from here on
        features = {}
        for i, (name, stage) in enumerate(zip(self._out_features, self.layers, strict=True)):
            output, x = stage(x)
            norm = self.get_submodule(f"norm{i}")
            features[name] = norm(output).permute(0, 3, 1, 2).contiguous()
        return features


def build_swin_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> SwinBackbone:
    """Build a `SwinBackbone` from ``MODEL.SWIN``."""
    return SwinBackbone(cfg, input_shape)


BACKBONE_REGISTRY.register(build_swin_backbone)


def _check(variant: str, window_size: int, drop_path_rate: float) -> None:
    if variant not in VARIANTS:
        raise ValueError(f"MODEL.SWIN.VARIANT is {variant!r}; known: {', '.join(VARIANTS)}")
    if window_size < 1:
        raise ValueError(f"MODEL.SWIN.WINDOW_SIZE must be positive, not {window_size}")
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"MODEL.SWIN.DROP_PATH_RATE must be in [0, 1), not {drop_path_rate}")


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _pad_to_even(x: torch.Tensor) -> torch.Tensor:
    """(N, H, W, C) with zeros; older versions of timm merge even sizes only."""
    height, width = x.shape[1:3]
    return F.pad(x, (0, 0, 0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x
